"""Converts IU X-Ray, in any of its distributed forms, to an annotation file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from diffrgen.errors import DataError
from diffrgen.preparation.archive import Archive
from diffrgen.preparation.iu_splits import ANNOTATION, IuSplits, choose_split, raw_records
from diffrgen.preparation.iu_study import IuStudy, study_number
from diffrgen.preparation.kaggle_iu import PROJECTIONS, REPORTS, read_kaggle, read_views
from diffrgen.preparation.openi import TARBALLS, openi_source, read_openi
from diffrgen.preparation.options import IuSource, IuXrayOptions
from diffrgen.preparation.summary import Summary
from diffrgen.preparation.views import ViewedImage, most_images, named_views, ordered_images, wanted_views
from diffrgen.preparation.writer import AnnotationWriter
from diffrgen.records import NO_SECTIONS, SPLITS, Split
from diffrgen.records.location import images_folder

Record = dict[str, Any]
IMAGES_A_STUDY = 2


def prepare_iu_xray(options: IuXrayOptions, *, progress: bool = False) -> Summary:
    """Write annotation.json and summary.json to `options.out` and return the summary.

    From Open-i and Kaggle a record holds `id` (R2Gen's where its annotation is in the archive, else CXR and the
    study's number), `patient_id`, `report`, `image_path` (file names, at most 4) and, where known, `view`, `views` and
    the sections of the report by name: findings, impression, indication and comparison. R2Gen's own annotation is checked
    and its records are passed on as they are, with the sections that Open-i's or Kaggle's files beside it give their
    studies. DataError names the file, what was needed and what came.
    """
    archive = Archive.scan(options.archive, without=options.out)
    summary = Summary("iu-xray", _plain(options))
    source = _source(archive, options.source)
    summary.options["source"] = source
    if options.out.resolve() == options.archive.resolve():
        raise DataError(
            f"{options.out}: needed another folder than the archive's, where an annotation.json means R2Gen's split"
        )
    with AnnotationWriter(options.out, overwrite=options.overwrite) as writer:
        if source == "annotation":
            records = _passed_on(archive, options, summary)
        else:
            studies = _read_studies(archive, source, summary, progress=progress)
            records = _new_records(archive, studies, options, summary)
        for split in SPLITS:
            for record in records[split]:
                writer.add(split, record)
        writer.finish(summary)
    return summary


def _source(archive: Archive, choice: IuSource) -> IuSource:
    """Return the source of the reports; DataError if it is missing."""
    order: tuple[IuSource, ...] = ("openi", "kaggle", "annotation")
    found = next((source for source in order if choice in ("auto", source) and _is_there(archive, source)), None)
    if found is None:
        names = {"openi": f"{TARBALLS[0]} or *.xml", "kaggle": REPORTS[0], "annotation": ANNOTATION[0]}
        needed = ", ".join(names.values()) if choice == "auto" else names[choice]
        got = ", ".join(sorted(archive.files)[:8]) or "no file"
        raise DataError(f"{archive.root}: needed {needed} for --source {choice}, got: {got}")
    return found


def _is_there(archive: Archive, source: IuSource) -> bool:
    names = {"kaggle": REPORTS, "annotation": ANNOTATION}
    return (openi_source(archive) if source == "openi" else archive.find(names[source])) is not None


def _read_studies(archive: Archive, source: IuSource, summary: Summary, *, progress: bool) -> list[IuStudy]:
    if source == "kaggle":
        reports = archive.need(REPORTS, "Kaggle's table of reports")
        projections = archive.need(PROJECTIONS, "Kaggle's table of images")
        summary.files |= {"reports": archive.relative(reports), "projections": archive.relative(projections)}
        studies = read_kaggle(reports, projections)
    else:
        packed = openi_source(archive) or archive.need(TARBALLS, "Open-i's reports")
        summary.files |= {
            "reports": archive.relative(packed),
            "projections": archive.relative(archive.find(PROJECTIONS)),
        }
        studies = read_openi(packed, read_views(archive), progress=progress)
    images = [image for study in studies for image in study.images]
    summary.read |= {"studies": len(studies), "images": len(images)}
    found = next((archive.files[image.name][0] for image in images if image.name in archive.files), None)
    summary.files["images"] = None if found is None else archive.relative(found.parent)
    unknown = sum(not image.view for image in images)
    if unknown:
        summary.notes.append(
            f"the view of {unknown:,} images is not known ({PROJECTIONS[0]} has it for most); they come after "
            "frontal ones, by name"
        )
    return studies


def _new_records(
    archive: Archive, studies: list[IuStudy], options: IuXrayOptions, summary: Summary
) -> dict[Split, list[Record]]:
    """Return the records of the studies that can be used, counting the others in `summary`."""
    usable = {study.number: images for study in studies if (images := _images(archive, study, options, summary))}
    splits = choose_split(archive, options.split, usable)
    summary.files["split"] = archive.relative(splits.source)
    summary.notes.append(splits.note)
    records: dict[Split, list[Record]] = {split: [] for split in SPLITS}
    for study in studies:
        if study.number not in usable:
            continue
        split = splits.split_of.get(study.number)
        if split is None:
            summary.drop("studies", "study not in the split list", f"CXR{study.number}")
            continue
        made = list(_records(study, usable[study.number], options, splits))
        summary.keep(split, patient=study.number, entries=len(made), images=len(usable[study.number]))
        records[split] += made
    absent = sorted(set(splits.listed) - {study.number for study in studies}, key=int)
    for number in absent:
        summary.drop("studies", "study of the split list without a report", splits.listed[number].id)
    return records


def _images(archive: Archive, study: IuStudy, options: IuXrayOptions, summary: Summary) -> list[ViewedImage]:
    """Return the images that `study` is used with; none, and the reason in `summary`, where it is dropped."""
    name = f"CXR{study.number}"
    if not study.text(options.section):
        what = "findings or impression" if options.section == "both" else options.section
        summary.drop("studies", f"report without {what}", name)
        return []
    images = ordered_images(study.images, wanted_views(options.views))
    if options.check_images:
        for image in images:
            if image.name not in archive.files:
                summary.drop("images", "image file missing", image.name)
        images = [image for image in images if image.name in archive.files]
    least = options.min_images or (1 if options.split == "whole" else IMAGES_A_STUDY)
    if len(images) < least:
        summary.drop("studies", f"study with fewer than {least} image(s) of the wanted views", name)
        return []
    return most_images(images, summary) if options.entries == "study" else images


def _records(study: IuStudy, images: list[ViewedImage], options: IuXrayOptions, splits: IuSplits) -> Iterator[Record]:
    listed = splits.listed.get(study.number)
    name = f"CXR{study.number}" if listed is None else listed.id
    groups = [[image] for image in images] if options.entries == "image" else [images]
    for position, group in enumerate(groups):
        record: Record = {
            "id": name if options.entries == "study" else f"{name}-{position}",
            "patient_id": f"CXR{study.number}",
            "report": study.text(options.section),
            "image_path": [image.name for image in group],
        }
        yield record | named_views(group) | study.sections.to_record()


def _passed_on(archive: Archive, options: IuXrayOptions, summary: Summary) -> dict[Split, list[Record]]:
    """Return the records of R2Gen's annotation as they are, all in test for --split whole."""
    path = archive.need(ANNOTATION, "R2Gen's annotation")
    changed = options.section != "findings" or options.entries != "study" or options.views or options.min_images
    if changed or options.split == "patients":
        raise DataError(
            f"{path}: records are passed on as they are; expected no --section, --entries, --views, --min-images and "
            "no --split patients with --source annotation, which need Open-i's or Kaggle's files"
        )
    summary.files |= {"reports": archive.relative(path), "images": archive.relative(images_folder(path, None))}
    parts = _with_sections(archive, raw_records(path), summary)
    everything = [record for split in SPLITS for record in parts[split]]
    summary.read["studies"] = len(everything)
    if options.split == "whole":
        parts = {"train": [], "val": [], "test": [record | {"split": "test"} for record in everything]}
        summary.notes.append("complete data set: every study is in test")
    else:
        summary.notes.append(f"split: that of {path.name} in the archive")
    return {split: list(_present(path, split, parts[split], options, summary)) for split in SPLITS}


def _with_sections(
    archive: Archive, parts: dict[Split, list[Record]], summary: Summary
) -> dict[Split, list[Record]]:
    """Add to each record the sections of its study, joined by number, where the archive holds Open-i's or Kaggle's files."""
    there = next((source for source in ("openi", "kaggle") if _is_there(archive, source)), None)
    if there is None:
        return parts
    source = (openi_source(archive) if there == "openi" else None) or archive.need(REPORTS, "Kaggle's table of reports")
    studies = read_openi(source, {}) if there == "openi" else read_kaggle(source, None)
    sections = {study.number: study.sections for study in studies}
    joined = {
        split: [sections.get(study_number(str(record["id"])) or "", NO_SECTIONS).to_record() | record for record in records]
        for split, records in parts.items()
    }
    summary.files["sections"] = archive.relative(source)
    count = sum("indication" in record for records in joined.values() for record in records)
    summary.notes.append(f"sections of the reports joined by study number: {count:,} records have an indication")
    return joined


def _present(
    path: Path, split: Split, records: list[Record], options: IuXrayOptions, summary: Summary
) -> Iterator[Record]:
    """Yield the records, with --check-images those of which every image file is there."""
    folder = images_folder(path, None)
    for record in records:
        value = record["image_path"]
        paths = [value] if isinstance(value, str) else value
        name = str(record["id"])
        missing = [image for image in paths if options.check_images and not (folder / image).is_file()]
        if missing:
            summary.drop("studies", "image file missing", name)
            continue
        summary.keep(split, patient=study_number(name) or name, entries=1, images=len(paths))
        yield record


def _plain(options: IuXrayOptions) -> dict[str, Any]:
    """Return the choices that make a difference to the content."""
    plain = asdict(options)
    return {key: plain[key] for key in plain if key not in ("archive", "out", "overwrite")}

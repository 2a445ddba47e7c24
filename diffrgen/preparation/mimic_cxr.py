"""MIMIC-CXR and MIMIC-CXR-JPG, as PhysioNet ships them, made into an annotation file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tqdm import tqdm

from diffrgen.errors import DataError
from diffrgen.preparation.archive import Archive
from diffrgen.preparation.mimic_labels import label_table, read_labels
from diffrgen.preparation.mimic_studies import MimicStudy, read_studies
from diffrgen.preparation.options import MimicCxrOptions
from diffrgen.preparation.prior_ids import PriorIds
from diffrgen.preparation.report_files import ReportFiles, open_reports, study_folder
from diffrgen.preparation.sections import choose_text, report_sections
from diffrgen.preparation.summary import Summary
from diffrgen.preparation.views import ViewedImage, most_images, named_views, ordered_images, wanted_views
from diffrgen.preparation.writer import AnnotationWriter
from diffrgen.records import NO_SECTIONS, SPLITS, Sections

PAPER_SAMPLES = "270,790 / 2,130 / 3,858"
FULL_IMAGES = 377_110
Record = dict[str, Any]


def prepare_mimic_cxr(options: MimicCxrOptions, *, progress: bool = False) -> Summary:
    """Write annotation.json and summary.json to `options.out` and return the summary.

    Image paths are p10/p10000032/s50414267/DICOM.jpg, below the archive's files/. A record holds `id`, `study_id`,
    `patient_id`, `report`, `image_path`, and where known `labels` (14 states), `study_date` (YYYY-MM-DD), `days`
    (day since year 1, the time of day as its fraction), `view`, `views` and `prior_id` (the first record of the patient's
    prior study), and the sections of the report that are there, by name (`Sections`).
    DataError names the file, what was needed and what came.
    """
    archive = Archive.scan(options.archive, without=options.out)
    summary = Summary("mimic-cxr", _plain(options))
    studies = read_studies(archive, summary, progress=progress)
    table = label_table(archive, options.labels)
    labels = {} if table is None else read_labels(table)
    reports = open_reports(archive)
    images = archive.patient_root(".jpg")
    if options.check_images and images is None:
        raise DataError(f"{archive.root}: needed files/p10/p10000032/s50414267/*.jpg for --check-images, got none")
    summary.files |= {"labels": archive.relative(table), "reports": archive.relative(reports.path)}
    summary.files["images"] = archive.relative(images)

    entries = MimicEntries(options, reports, labels, images if options.check_images else None, summary)
    with AnnotationWriter(options.out, overwrite=options.overwrite) as writer:
        for split in SPLITS:
            for study in tqdm(studies[split], split, unit="study", disable=not progress, leave=False):
                for record in entries.of_study(study):
                    writer.add(split, record)
        _add_notes(summary, options, labelled=table is not None, without_labels=entries.without_labels)
        writer.finish(summary)
    return summary


class MimicEntries:
    """Makes the records of one study after another, in the order of `read_studies`.

    labels: 14 bytes a study. images: the folder to look for image files in; None: nobody looks.
    """

    def __init__(
        self,
        options: MimicCxrOptions,
        reports: ReportFiles,
        labels: dict[str, bytes],
        images: Path | None,
        summary: Summary,
    ) -> None:
        self.without_labels = 0
        self._options = options
        self._reports = reports
        self._labels = labels
        self._images = images
        self._summary = summary
        self._views = wanted_views(options.views)
        self._priors = PriorIds()

    def of_study(self, study: MimicStudy) -> Iterator[Record]:
        """Yield the records of `study`; none, and the reason in the summary, where it is dropped."""
        images = self._kept_images(study)
        if not images:
            return
        text, sections = self._report(study)
        if not text:
            return
        one_each = self._options.entries == "image"
        images = images if one_each else most_images(images, self._summary)
        groups = [[image] for image in images] if one_each else [images]
        first = images[0].name if one_each else f"s{study.id}"
        prior = self._priors.next(study.patient, study.days, first)
        states = self._labels.get(study.id)
        self.without_labels += bool(self._labels) and states is None
        self._summary.keep(study.split, patient=study.patient, entries=len(groups), images=len(images), states=states)
        for group in groups:
            name = group[0].name if one_each else first
            yield self._record(study, group, name, text, prior) | sections.to_record()

    def _kept_images(self, study: MimicStudy) -> list[ViewedImage]:
        images = ordered_images(study.images, self._views)
        if not images:
            self._summary.drop("studies", "study without an image of the requested views", f"s{study.id}")
            return []
        if self._images is None:
            return images
        folder = self._images / study_folder(study.patient, study.id)
        there = [image for image in images if (folder / f"{image.name}.jpg").is_file()]
        for image in sorted(set(images) - set(there)):
            self._summary.drop("images", "image file missing", image.name)
        if not there:
            self._summary.drop("studies", "study without an image file", f"s{study.id}")
        return there

    def _report(self, study: MimicStudy) -> tuple[str, Sections]:
        """Return the text of the study and its sections; no text, and the reason in the summary, where it is dropped."""
        report = self._reports.read(study.patient, study.id)
        if report is None:
            self._summary.drop("studies", "study without a report file", f"s{study.id}")
            return "", NO_SECTIONS
        options = self._options
        chosen = choose_text(report, options.section, combined=options.combined, last_paragraph=options.last_paragraph)
        if chosen.reason is not None:
            self._summary.drop("studies", chosen.reason, f"s{study.id}")
        return chosen.text, report_sections(report, combined=options.combined) if chosen.text else NO_SECTIONS

    def _record(self, study: MimicStudy, images: list[ViewedImage], name: str, text: str, prior: str | None) -> Record:
        folder = study_folder(study.patient, study.id)
        record: Record = {
            "id": name,
            "study_id": study.id,
            "patient_id": study.patient,
            "report": text,
            "image_path": [f"{folder}/{image.name}.jpg" for image in images],
        }
        labels = self._labels.get(study.id)
        known = {
            "labels": None if labels is None else list(labels),
            "study_date": study.date,
            "days": study.days,
            **named_views(images),
            "prior_id": prior,
        }
        return record | {key: value for key, value in known.items() if value is not None}


def _add_notes(summary: Summary, options: MimicCxrOptions, *, labelled: bool, without_labels: int) -> None:
    if summary.read["images"] == FULL_IMAGES and options.section == "findings" and options.entries == "image":
        summary.notes.append(f"the paper counts {PAPER_SAMPLES} samples in train / val / test")
    if not labelled and options.labels == "auto":
        summary.notes.append("no label table in the archive: training will label the reports")
    if without_labels:
        summary.notes.append(f"{without_labels} studies are not in the label table and have no labels")


def _plain(options: MimicCxrOptions) -> dict[str, Any]:
    """Return the choices that make a difference to the content."""
    plain = asdict(options)
    return {key: plain[key] for key in plain if key not in ("archive", "out", "overwrite")}

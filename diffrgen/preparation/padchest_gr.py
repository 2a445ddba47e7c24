"""PadChest-GR, as BIMCV ships it, made into an annotation file.

Source of the names of its columns and fields: the data set's own master_table.csv and grounded_reports_20240819.json.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from diffrgen.errors import DataError, reason_of
from diffrgen.preparation.archive import Archive
from diffrgen.preparation.collected import CollectedStudy, age_years, day_of, sex_of, single_spaced
from diffrgen.preparation.collection import ImageSource, plain_options, write_collection
from diffrgen.preparation.options import Language, PadchestGrOptions
from diffrgen.preparation.packed_images import ZippedImages, numbered_parts
from diffrgen.preparation.summary import Summary
from diffrgen.preparation.table import read_table
from diffrgen.preparation.views import ViewedImage
from diffrgen.records import Sections, Split
from diffrgen.records.json_text import parse_json

TABLES = ("master_table.csv", "master_table.csv.gz")
REPORTS = "grounded_reports"
ZIP = "PadChest_GR.zip"
SPLIT_NAMES: dict[str, Split] = {"train": "train", "validation": "val", "test": "test"}
COLUMNS = ("StudyID", "ImageID", "split", "PatientID", "StudyDate")
MORE_COLUMNS = ("StudyDate_DICOM", "PatientAge", "PatientSex_DICOM")
KEPT_FIELDS = ("boxes", "extra_boxes", "labels", "locations", "progression", "abnormal")
NO_IMAGES = r"(?!)"


def prepare_padchest_gr(options: PadchestGrOptions, *, progress: bool = False) -> Summary:
    """Write annotation.json and summary.json to `options.out` and return the summary; see `write_collection`.

    A report's findings are the sentences of the study in their order. A record's `sentences` hold each with its boxes
    (x0, y0, x1, y1 in 0..1), labels, locations and progression. Priors are the patient's latest study of an earlier day
    within the collection. DataError names the file, what was needed and what came.
    """
    if options.section != "findings":
        raise DataError(f"{options.archive}: expected --section findings, for the reports have no other, got {options.section}")
    archive = Archive.scan(options.archive, without=options.out, closed=NO_IMAGES)
    summary = Summary("padchest-gr", plain_options(options))
    table = archive.need(TABLES, "PadChest-GR's table of studies")
    reports = next((file for file in archive.ending(".json") if file.name.startswith(REPORTS)), None)
    if reports is None:
        raise DataError(f"{archive.root}: needed {REPORTS}_20240819.json (PadChest-GR's sentences), got no such file")
    summary.files |= {"table": archive.relative(table), "reports": archive.relative(reports)}
    parts = [file for name, places in archive.files.items() if name.startswith(ZIP) for file in places]
    packed = None
    if parts:
        packed = ZippedImages([numbered_parts(parts) if len(parts) > 1 else parts], _file_name)
    unpacked = archive.ending(".png")
    folder = unpacked[0].parent if unpacked else None
    summary.files["images"] = "images" if options.unpack else archive.relative(folder)
    sentences = _sentences(reports, options.language, summary)

    def studies() -> Iterator[CollectedStudy]:
        return _studies(table, sentences)

    return write_collection(studies, ImageSource(folder, packed), options, summary, progress=progress)


def _file_name(member: str) -> str:
    return PurePosixPath(member).name


def _studies(table: Path, sentences: dict[str, list[dict[str, Any]]]) -> Iterator[CollectedStudy]:
    """Yield each study of the table, whose rows are sentences, with the images that its rows name."""
    images: dict[str, list[str]] = {}
    first: dict[str, tuple[str, ...]] = {}
    for study, image, *rest in read_table(table, COLUMNS, optional=MORE_COLUMNS):
        known = images.setdefault(study, [])
        if image not in known:
            known.append(image)
        first.setdefault(study, tuple(rest))
    for study, (split, patient, day, dicom_day, age, sex) in first.items():
        if split not in SPLIT_NAMES:
            raise DataError(f"{table}: study {study}: expected a split out of {', '.join(SPLIT_NAMES)}, got {split!r}")
        described = sentences.get(study, [])
        date = day_of(dicom_day) or day_of(day)
        yield CollectedStudy(
            id=study,
            patient=patient,
            split=SPLIT_NAMES[split],
            images=tuple(ViewedImage(image, "") for image in images[study]),
            sections=Sections(findings=" ".join(sentence["text"] for sentence in described)),
            order=date,
            day=date,
            age=age_years(age),
            sex=sex_of(sex),
            more=(("sentences", described),) if described else (),
        )


def _sentences(path: Path, language: Language, summary: Summary) -> dict[str, list[dict[str, Any]]]:
    """Return the sentences of each study, counting a study that is there twice in `summary`."""
    field = f"sentence_{language}"
    described: dict[str, list[dict[str, Any]]] = {}
    for record in _records(path):
        findings = record.get("findings") if isinstance(record, dict) else None
        if not isinstance(findings, list) or not all(isinstance(finding, dict) for finding in findings):
            raise DataError(f"{path}: expected objects with StudyID and findings, a list of objects, got {record!r:.120}")
        study = str(record.get("StudyID"))
        if study in described:
            summary.drop("studies", "duplicate report", study)
            continue
        described[study] = [
            {"text": text, **{name: finding[name] for name in KEPT_FIELDS if name in finding}}
            for finding in findings
            if (text := single_spaced(finding.get(field) if isinstance(finding.get(field), str) else ""))
        ]
    return described


def _records(path: Path) -> list[Any]:
    try:
        content = parse_json(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: expected PadChest-GR's list of reports, got: {reason_of(error)}") from error
    if not isinstance(content, list):
        raise DataError(f"{path}: expected a list of reports, got {type(content).__name__}")
    return content

"""CheXpert Plus, as Stanford ships it, made into an annotation file.

Source of the names of its columns and files: Stanford-AIMI/chexpert-plus, and aehrc/cxrmate-2's preparation of it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from diffrgen.errors import DataError, reason_of
from diffrgen.labels import FINDINGS, State
from diffrgen.preparation.archive import Archive
from diffrgen.preparation.collected import CollectedStudy, age_years, sex_of, single_spaced
from diffrgen.preparation.collection import ImageSource, plain_options, write_collection
from diffrgen.preparation.options import ChexpertPlusOptions
from diffrgen.preparation.packed_images import ZippedImages
from diffrgen.preparation.summary import Summary
from diffrgen.preparation.table import read_table
from diffrgen.preparation.views import ViewedImage
from diffrgen.records import Sections, Split

TABLES = ("df_chexpert_plus_240401.csv", "df_chexpert_plus_240401.csv.gz")
# Folders of the unpacked images, which are not looked through.
SPLIT_FOLDERS = "train|valid"
IMAGE_COLUMNS = ("path_to_image", "deid_patient_id", "split")
VIEW_COLUMNS = ("frontal_lateral", "ap_pa", "path_to_dcm")
STUDY_COLUMNS = (*IMAGE_COLUMNS, "patient_report_date_order", "section_findings", "section_impression")
MORE_COLUMNS = ("section_clinical_history", "section_history", "section_comparison", "section_technique", "age", "sex")
STATES = {1: State.POSITIVE, 0: State.NEGATIVE, -1: State.UNCERTAIN, None: State.BLANK}
ZIP_FOLDER = "PNG/"
VAL_PATIENTS = 100


def prepare_chexpert_plus(options: ChexpertPlusOptions, *, progress: bool = False) -> Summary:
    """Write annotation.json and summary.json to `options.out` and return the summary; see `write_collection`.

    A study's id is patient64541_study1; its prior is the one with the next smaller `patient_report_date_order`. The
    clinical history and the history make up the section `history`. DataError names the file, what was needed and what came.
    """
    archive = Archive.scan(options.archive, without=options.out, closed=SPLIT_FOLDERS)
    summary = Summary("chexpert-plus", plain_options(options))
    table = archive.need(TABLES, "CheXpert Plus's table of images and reports")
    labels_file = _labels_file(archive, options)
    summary.files |= {"reports": archive.relative(table), "labels": archive.relative(labels_file)}
    labels = {} if labels_file is None else _read_labels(labels_file)
    images = _read_images(table, options, summary)
    zips = archive.ending(".zip")
    packed = ZippedImages([[file] for file in zips], _zip_name) if zips and options.images == "png" else None
    folder = archive.patient_roots[0] if archive.patient_roots else None
    summary.files["images"] = "images" if options.unpack else archive.relative(folder)

    def studies() -> Iterator[CollectedStudy]:
        return _studies(table, images, labels, options)

    if options.valid_as == "test":
        summary.notes.append("split: valid is test, as ReXrank takes it; val is a hundredth of the training patients")
    return write_collection(studies, ImageSource(folder, packed), options, summary, progress=progress)


def _zip_name(member: str) -> str:
    return member.removeprefix(ZIP_FOLDER)


def _read_images(
    table: Path, options: ChexpertPlusOptions, summary: Summary
) -> dict[str, tuple[ViewedImage, ...]]:
    """Return the images of each study, by its id, counting one that is there twice in `summary`."""
    images: dict[str, tuple[ViewedImage, ...]] = {}
    for path, patient, _, side, view, dicom in read_table(table, IMAGE_COLUMNS, optional=VIEW_COLUMNS):
        study = _study_id(table, path, patient)
        name = dicom if options.images == "dicom" else str(PurePosixPath(path).with_suffix(f".{options.images}"))
        before = images.get(study, ())
        if any(image.name == name for image in before):
            summary.drop("images", "duplicate image", name)
            continue
        images[study] = (*before, ViewedImage(name, (view or side).upper()))
    return images


def _studies(
    table: Path, images: dict[str, tuple[ViewedImage, ...]], labels: dict[str, bytes], options: ChexpertPlusOptions
) -> Iterator[CollectedStudy]:
    """Yield each study at the first row of its images."""
    yielded: set[str] = set()
    for row in read_table(table, STUDY_COLUMNS, optional=MORE_COLUMNS, ids=("patient_report_date_order",)):
        path, patient, split, order, findings, impression, clinical, history, comparison, technique, age, sex = row
        name = _study_id(table, path, patient)
        if name in yielded:
            continue
        yielded.add(name)
        states = labels.get(name)
        known = dict.fromkeys(filter(None, map(single_spaced, (clinical, history))))
        yield CollectedStudy(
            id=name,
            patient=patient,
            split=_split(table, path, split, patient, options),
            images=images[name],
            sections=Sections(
                findings=single_spaced(findings),
                impression=single_spaced(impression),
                history=" ".join(known),
                comparison=single_spaced(comparison),
                technique=single_spaced(technique),
            ),
            order=_order(table, path, order),
            age=age_years(age),
            sex=sex_of(sex),
            labels=None if states is None else tuple(states),
        )


def _study_id(table: Path, path: str, patient: str) -> str:
    parts = path.split("/")
    if len(parts) < 4 or not patient:
        raise DataError(
            f"{table}: expected path_to_image such as train/patient00001/study1/view1_frontal.jpg and a deid_patient_id, got "
            f"{path!r} and {patient!r}"
        )
    return f"{patient}_{parts[2]}"


def _split(table: Path, path: str, name: str, patient: str, options: ChexpertPlusOptions) -> Split:
    if name == "valid":
        return options.valid_as
    if name != "train":
        raise DataError(f"{table}: image {path}: expected a split out of train, valid, got {name!r}")
    if options.valid_as == "val":
        return "train"
    number = int.from_bytes(hashlib.sha256(patient.encode()).digest()[:8], "big")
    return "train" if number % VAL_PATIENTS else "val"


def _order(table: Path, path: str, text: str) -> float | None:
    if not text:
        return None
    try:
        return float(int(text))
    except ValueError:
        raise DataError(
            f"{table}: image {path}: expected a whole number as patient_report_date_order, got {text!r}"
        ) from None


def _labels_file(archive: Archive, options: ChexpertPlusOptions) -> Path | None:
    """Return the labels file that `options` select; DataError if it is requested by name and missing."""
    if options.labels == "none":
        return None
    auto = {"findings": "findings", "impression": "impression", "both": "report"}[options.section]
    names = [f"{auto if options.labels == 'auto' else options.labels}_fixed.json"]
    if options.labels == "auto":
        return archive.find(names)
    return archive.need(names, f"the labels that --labels {options.labels} asks for")


def _read_labels(path: Path) -> dict[str, bytes]:
    """Return the 14 states of each study, a byte each in the order of `FINDINGS`, from JSON lines with 1, 0, -1 and null."""
    labels: dict[str, bytes] = {}
    try:
        with path.open(encoding="utf-8-sig") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    study, states = _label_line(line, f"{path}: line {number}")
                    labels[study] = states
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: expected JSON lines of labels, got: {reason_of(error)}") from error
    return labels


def _label_line(line: str, place: str) -> tuple[str, bytes]:
    """Return the study of a line and its states."""
    try:
        row = {str(key).strip().lower(): value for key, value in json.loads(line).items()}
        _, patient, study, *_ = row["path_to_image"].split("/")
        return f"{patient}_{study}", bytes(STATES[row[name.lower()]] for name in FINDINGS)
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise DataError(
            f"{place}: expected a JSON object with path_to_image and 1, 0, -1 or null for each finding, got "
            f"{type(error).__name__}: {error}"
        ) from error

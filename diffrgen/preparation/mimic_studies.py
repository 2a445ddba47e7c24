"""MIMIC-CXR's studies: images, views and dates from the metadata table, the split from the official list."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

from tqdm import tqdm

from diffrgen.errors import DataError
from diffrgen.preparation.archive import Archive
from diffrgen.preparation.summary import Summary
from diffrgen.preparation.table import read_table
from diffrgen.preparation.views import ViewedImage
from diffrgen.records import Split

SPLIT_NAMES = ("mimic-cxr-2.0.0-split.csv.gz", "mimic-cxr-2.0.0-split.csv")
METADATA_NAMES = ("mimic-cxr-2.0.0-metadata.csv.gz", "mimic-cxr-2.0.0-metadata.csv")
OFFICIAL_SPLITS: dict[str, Split] = {"train": "train", "validate": "val", "test": "test"}
SECONDS_A_DAY = 86400


@dataclass(slots=True)
class MimicStudy:
    """One study. `days`: the day since year 1 and the time of day as its fraction; None if no date is given."""

    patient: str
    id: str
    split: Split
    days: float | None
    images: list[ViewedImage] = field(default_factory=list)

    @property
    def date(self) -> str | None:
        """The study's day, YYYY-MM-DD."""
        return None if self.days is None else date.fromordinal(int(self.days)).isoformat()


def read_studies(archive: Archive, summary: Summary, *, progress: bool = False) -> dict[Split, list[MimicStudy]]:
    """Return the studies of each split, by patient, then time, then number.

    Images that are only in one of the two tables are dropped, with the reason. DataError names the file and the
    image for an unknown split, a date that is none, a study of two patients, a patient in two splits.
    """
    split_file = archive.need(SPLIT_NAMES, "the official split, from MIMIC-CXR-JPG")
    metadata = archive.need(METADATA_NAMES, "views and dates, from MIMIC-CXR-JPG")
    summary.files |= {"split": archive.relative(split_file), "metadata": archive.relative(metadata)}
    split_of = _read_split(split_file)
    studies: dict[str, MimicStudy] = {}
    columns = ("dicom_id", "subject_id", "study_id", "ViewPosition", "StudyDate", "StudyTime")
    images = 0
    for dicom, patient, study, view, day, time in tqdm(
        read_table(metadata, columns, ids=("subject_id", "study_id", "StudyDate")),
        "metadata",
        len(split_of),
        unit="image",
        disable=not progress,
        leave=False,
    ):
        images += 1
        split = split_of.pop(dicom, None)
        if split is None:
            summary.drop("images", "image not in the split list, or twice in the metadata", dicom)
            continue
        days = _days(day, time, f"{metadata}: image {dicom}")
        known = studies.setdefault(study, MimicStudy(sys.intern(patient), study, split, days))
        if (known.patient, known.split) != (patient, split):
            raise DataError(
                f"{metadata}: image {dicom}: expected patient {known.patient} and split {known.split} as in the other "
                f"images of study {study}, got patient {patient} and split {split}"
            )
        # The times of a study's images may differ by minutes; the first one is the study's.
        known.days = min((value for value in (known.days, days) if value is not None), default=None)
        known.images.append(ViewedImage(dicom, sys.intern(view)))
    for dicom in split_of:
        summary.drop("images", "image not in the metadata", dicom)
    summary.read |= {"images": images, "studies": len(studies)}
    return _by_split(studies, split_file)


def _read_split(path: Path) -> dict[str, Split]:
    """Return the split of each image."""
    splits: dict[str, Split] = {}
    for dicom, name in read_table(path, ("dicom_id", "split")):
        if name not in OFFICIAL_SPLITS:
            known = ", ".join(OFFICIAL_SPLITS)
            raise DataError(f"{path}: image {dicom}: expected a split out of {known}, got {name!r}")
        splits[dicom] = OFFICIAL_SPLITS[name]
    return splits


def _by_split(studies: dict[str, MimicStudy], split_file: Path) -> dict[Split, list[MimicStudy]]:
    parts: dict[Split, list[MimicStudy]] = {split: [] for split in OFFICIAL_SPLITS.values()}
    split_of_patient: dict[str, Split] = {}
    for study in sorted(studies.values(), key=lambda study: (study.patient, study.days or 0.0, study.id)):
        expected = split_of_patient.setdefault(study.patient, study.split)
        if study.split != expected:
            raise DataError(
                f"{split_file}: expected all studies of patient {study.patient} in {expected}, got study {study.id} "
                f"in {study.split}; the patient would be trained on and tested"
            )
        parts[study.split].append(study)
    return parts


def _days(day: str, time: str, place: str) -> float | None:
    """Return StudyDate (YYYYMMDD) and StudyTime (HHMMSS.fff, leading zeros lost) as days, to the second."""
    if not day:
        return None
    clock = (time.split(".")[0] or "0").zfill(6)
    try:
        if not (len(day) == 8 and day.isdecimal() and len(clock) == 6 and clock.isdecimal()):
            raise ValueError("not YYYYMMDD and HHMMSS")
        ordinal = date(int(day[:4]), int(day[4:6]), int(day[6:])).toordinal()
        seconds = int(clock[:2]) * 3600 + int(clock[2:4]) * 60 + int(clock[4:])
        if seconds >= SECONDS_A_DAY:
            raise ValueError("past midnight")
    except ValueError:
        raise DataError(
            f"{place}: expected StudyDate YYYYMMDD and StudyTime HHMMSS.fff, got {day!r} and {time!r}"
        ) from None
    return round(ordinal + seconds / SECONDS_A_DAY, 6)

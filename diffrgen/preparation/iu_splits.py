"""The split of each IU X-Ray study: R2Gen's list, a hash of the patient, or all in test."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from diffrgen.errors import DataError
from diffrgen.preparation.archive import Archive
from diffrgen.preparation.iu_study import study_number
from diffrgen.preparation.options import IuSplit
from diffrgen.preparation.table import read_table
from diffrgen.records import SPLITS, Split, read_annotation

ANNOTATION = ("annotation.json",)
SPLIT_LIST = ("split.csv",)
SPLIT_NAMES: dict[str, Split] = {"train": "train", "val": "val", "validate": "val", "test": "test"}


@dataclass(frozen=True, slots=True)
class ListedStudy:
    """A study that a split list names: its split and its id there."""

    split: Split
    id: str


@dataclass(frozen=True, slots=True)
class IuSplits:
    """The split of each study by number, `listed` if it comes from a file, and a sentence that describes it."""

    split_of: Mapping[str, Split]
    listed: Mapping[str, ListedStudy]
    note: str
    source: Path | None = None


def choose_split(archive: Archive, choice: IuSplit, numbers: Iterable[str]) -> IuSplits:
    """Return the splits of the studies `numbers` by `choice`; DataError for r2gen where the archive has no list.

    Studies that the list does not name have no split. Where a list is there its ids are kept in every case.
    """
    source = archive.find(ANNOTATION) or archive.find(SPLIT_LIST)
    listed = {} if source is None else _read_list(source)
    known = list(numbers)
    if choice == "whole":
        return IuSplits(dict.fromkeys(known, "test"), listed, "complete data set: every study is in test")
    if source is not None and choice != "patients":
        split_of = {number: listed[number].split for number in known if number in listed}
        return IuSplits(split_of, listed, f"split: that of {source.name} in the archive", source)
    if choice == "r2gen":
        archive.need((*ANNOTATION, *SPLIT_LIST), "R2Gen's split, which --split r2gen asks for")
    note = "split: 7:1:2 by a hash of the patient, NOT R2Gen's, so scores do not compare with published ones"
    return IuSplits(hash_split(known), listed, note)


def hash_split(patients: Iterable[str]) -> dict[str, Split]:
    """Return a split of `patients` 7:1:2, in the order of the SHA-256 of their names: the same on every machine.

    Of n, floor(0.7 n + 0.5) are in train, floor(0.1 n + 0.5) in val; for R2Gen's 2,955: 2,069, 296 and 590.
    """
    ordered = sorted(set(patients), key=lambda patient: hashlib.sha256(patient.encode()).digest())
    train, val = (7 * len(ordered) + 5) // 10, (len(ordered) + 5) // 10
    split_of: dict[str, Split] = dict.fromkeys(ordered, "test")
    split_of.update(dict.fromkeys(ordered[: train + val], "val"))
    split_of.update(dict.fromkeys(ordered[:train], "train"))
    return split_of


def _read_list(path: Path) -> dict[str, ListedStudy]:
    """Return the studies that `path`, an annotation or a table with id and split, names, by number."""
    rows = _annotation_rows(path) if path.suffix == ".json" else _table_rows(path)
    listed: dict[str, ListedStudy] = {}
    for name, split in rows:
        number = study_number(name)
        if number is None or number in listed:
            raise DataError(f"{path}: expected ids such as CXR2384_IM-0942, each study once, got {name!r}")
        listed[number] = ListedStudy(split, name)
    return listed


def _annotation_rows(path: Path) -> list[tuple[str, Split]]:
    splits = read_annotation(path, check_files=False, check_reports=False)
    return [(study.id, split) for split in SPLITS for study in splits[split]]


def _table_rows(path: Path) -> list[tuple[str, Split]]:
    rows = list(read_table(path, ("id", "split")))
    wrong = next((split for _, split in rows if split not in SPLIT_NAMES), None)
    if wrong is not None:
        raise DataError(f"{path}: expected a split out of {', '.join(SPLIT_NAMES)}, got {wrong!r}")
    return [(name, SPLIT_NAMES[split]) for name, split in rows]


def raw_records(path: Path) -> dict[Split, list[dict[str, object]]]:
    """Return the records of the annotation `path` as they are, after `read_annotation` has checked each.

    A flat list is the test split.
    """
    read_annotation(path, check_files=False, check_reports=False)
    content = json.loads(path.read_text(encoding="utf-8-sig"))
    if isinstance(content, list):
        content = {"test": content}
    return {split: content.get(split, []) for split in SPLITS}

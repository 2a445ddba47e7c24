"""Images with labels of findings: those of studies, and those that a table lists."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from diffrgen.errors import DataError, reason_of
from diffrgen.labels import DISEASES, State
from diffrgen.records import Study

UNKNOWN = -1
# The values of one image, in the order of DISEASES: 1 present, 0 absent, UNKNOWN.
Truth = tuple[int, ...]

PATHS = ("path", "filename", "image_path", "file", "image", "image index")
NAMES = "finding labels"
NORMAL = "no finding"
OPACITY = "lung opacity"
# The finding of each class of NIH ChestX-ray14; None: not one of the 13.
NIH: MappingProxyType[str, str | None] = MappingProxyType(
    {
        "effusion": "pleural effusion",
        "infiltration": OPACITY,
        "nodule": "lung lesion",
        "mass": "lung lesion",
        "pleural thickening": "pleural other",
        "fibrosis": None,
        "emphysema": None,
        "hernia": None,
        NORMAL: None,
    }
)
# The findings that its labels do not cover.
NOT_IN_NIH = frozenset({"enlarged cardiomediastinum", "fracture", "support devices"})
VALUES = MappingProxyType({"1": 1, "1.0": 1, "0": 0, "0.0": 0, "": 0, "-1": UNKNOWN, "-1.0": UNKNOWN})


@dataclass(frozen=True)
class LabelledImage:
    """An image file and, for each of the 13 diseases, whether it shows it: 1, 0, or UNKNOWN."""

    path: Path
    truth: Truth


def studies_as_labelled(studies: Iterable[Study]) -> list[LabelledImage]:
    """Return every image of `studies` with its study's states: an uncertain one is unknown, one not mentioned absent."""
    known = {int(State.POSITIVE): 1, int(State.UNCERTAIN): UNKNOWN}
    return [
        LabelledImage(path, tuple(known.get(state, 0) for state in (study.labels or ())[: len(DISEASES)]))
        for study in studies
        for path in study.images
    ]


def read_labelled(table: Path, images: Path) -> list[LabelledImage]:
    """Return the images that the CSV file `table` lists, looked for below the folder `images`.

    A row is an image: its path in a column `path`, `filename`, `image_path`, `file`, `image` or `Image Index`. Its labels
    are either in one column `Finding Labels`, names with | between (NIH ChestX-ray14), or in a column a finding: 1, 0, -1
    (uncertain, taken as unknown) or nothing (absent), as CheXpert's tables have them. A finding without a column is
    unknown, as is each that NIH's classes do not cover. Names of columns and findings in any case.

    Raises DataError for a file that cannot be read or has no such columns, a label or value that is not known, and an
    image that is not there.
    """
    rows: list[LabelledImage] = []
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            lines = csv.reader(file)
            header = [name.strip().lower() for name in next(lines, [])]
            place = next((header.index(name) for name in PATHS if name in header), None)
            columns = {name: header.index(name) for name in DISEASES if name in header}
            names = header.index(NAMES) if NAMES in header else None
            if place is None or (names is None and not columns):
                got = ", ".join(header)[:300] or "an empty file"
                raise DataError(
                    f"{table}: expected a column {' or '.join(PATHS)} and one of {NAMES!r} or of findings such as "
                    f"{DISEASES[1]}, got: {got}"
                )
            for line in lines:
                where = f"{table}: line {lines.line_num}"
                if not line:
                    continue
                if len(line) != len(header):
                    raise DataError(f"{where}: expected {len(header)} fields, got {len(line)}")
                truth = _of_columns(line, columns, where) if names is None else _of_names(line[names], where)
                rows.append(LabelledImage(_found(images, line[place].strip(), where), truth))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{table}: expected a CSV file of images and their labels, got: {reason_of(error)}") from error
    if not rows:
        raise DataError(f"{table}: expected at least one image, got none")
    return rows


def _found(images: Path, name: str, where: str) -> Path:
    path = images / name
    if not name or not path.is_file() or not path.resolve().is_relative_to(images.resolve()):
        raise DataError(f"{where}: expected an image below {images}, got {name!r}, which is not there")
    return path


def _of_columns(line: Sequence[str], columns: dict[str, int], where: str) -> Truth:
    truth = dict.fromkeys(DISEASES, UNKNOWN)
    for name, column in columns.items():
        value = line[column].strip()
        if value not in VALUES:
            raise DataError(f"{where}: {name}: expected 1, 0, -1 or nothing, got {value!r}")
        truth[name] = VALUES[value]
    return tuple(truth.values())


def _of_names(labels: str, where: str) -> Truth:
    """Read NIH's labels: what is not named is absent, but for an opacity, which other findings may be."""
    truth = {name: UNKNOWN if name in NOT_IN_NIH else 0 for name in DISEASES}
    names = [name.strip().lower().replace("_", " ") for name in labels.split("|")]
    for name in names:
        finding = NIH.get(name, name)
        if finding is None:
            continue
        if finding not in truth:
            raise DataError(f"{where}: expected findings such as {DISEASES[1]} with | between, got {name!r}")
        truth[finding] = 1
    if truth[OPACITY] == 0 and names != [NORMAL]:
        truth[OPACITY] = UNKNOWN
    return tuple(truth.values())

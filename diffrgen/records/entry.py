"""One record of an annotation file: its fields read and checked, and the faults that make it unusable."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

from diffrgen.records.ids import id_text
from diffrgen.records.sections import Sections

LABEL_WIDTHS = (14, 18)
LABEL_VALUES = frozenset({0, 1, 2, 3})


class EntryError(ValueError):
    """A field of a record is invalid; the message names the field and gives the received value."""


@dataclass(frozen=True, slots=True)
class Entry:
    """The checked fields of one record, before its image paths are joined to a folder."""

    id: str
    report: str
    image_paths: tuple[str, ...]
    labels: tuple[int, ...] | None
    patient_id: str | None
    days: float | None
    view: str | None
    prior_id: str | None
    views: tuple[str, ...]
    sections: Sections


def parse_entry(record: object) -> Entry:
    """Return the fields of `record`, an object of R2Gen's annotation format.

    `subject_id` is read as `patient_id` where the latter is absent (R2Gen's MIMIC-CXR file), `study_date` as
    `days`. EntryError names the field that is wrong.
    """
    if not isinstance(record, Mapping):
        raise EntryError(f"expected an object with id, report and image_path, got {type(record).__name__}")
    patient = "patient_id" if record.get("patient_id") is not None else "subject_id"
    image_paths = _image_paths(record)
    return Entry(
        id=_id(record),
        report=_report(record),
        image_paths=image_paths,
        labels=_labels(record.get("labels")),
        patient_id=_name(record, patient),
        days=_days(record),
        view=_name(record, "view"),
        prior_id=_name(record, "prior_id"),
        views=_views(record, len(image_paths)),
        sections=Sections.of_record(record),
    )


def is_empty_report(report: str) -> bool:
    """Return whether `report` has no letter: nothing, "___", or an enumeration mark whose text is missing."""
    return not any(map(str.isalpha, report))


def _report(record: Mapping[str, Any]) -> str:
    """Return the report, "" for null and NaN, which is what pandas writes for a missing one."""
    report = record.get("report", 0)
    if report is None or (isinstance(report, float) and math.isnan(report)):
        return ""
    if not isinstance(report, str):
        raise EntryError(f"'report' must be a text, got {_shown(record, 'report')}")
    return report


def _shown(record: Mapping[str, Any], key: str) -> str:
    return repr(record[key])[:80] if key in record else "no such field"


def _id(record: Mapping[str, Any]) -> str:
    name = _name(record, "id")
    if name is None:
        raise EntryError(f"'id' must be a text or an integer, got {_shown(record, 'id')}")
    return name


def _name(record: Mapping[str, Any], key: str) -> str | None:
    value = record.get(key)
    if value is None or value == "":
        return None
    name = id_text(value)
    if name is None:
        raise EntryError(f"'{key}' must be a text or an integer, got {_shown(record, key)}")
    return name


def _image_paths(record: Mapping[str, Any]) -> tuple[str, ...]:
    value = record.get("image_path")
    paths = [value] if isinstance(value, str) else value
    if not isinstance(paths, list) or not paths or not all(isinstance(path, str) for path in paths):
        shown = _shown(record, "image_path")
        raise EntryError(f"'image_path' must be a path or a list of at least one path, got {shown}")
    return tuple(paths)


def _views(record: Mapping[str, Any], images: int) -> tuple[str, ...]:
    """Return the name of each image's view, "" for an unknown one; empty if the record has no `views`."""
    value = record.get("views")
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise EntryError(f"'views' must be a list of texts such as frontal, lateral, PA, got {_shown(record, 'views')}")
    if len(value) != images:
        raise EntryError(f"'views' must name the view of each of {images} images, got {len(value)}")
    return tuple(value)


def _labels(value: object) -> tuple[int, ...] | None:
    if value is None:
        return None
    if not isinstance(value, list):
        raise EntryError(f"'labels' must be a list of 14 or 18 states, got {type(value).__name__}")
    if len(value) not in LABEL_WIDTHS:
        raise EntryError(f"'labels' must hold 14 or 18 states, got {len(value)}")
    if set(map(type, value)) != {int} or not LABEL_VALUES.issuperset(value):
        wrong = next(state for state in value if type(state) is not int or state not in LABEL_VALUES)
        raise EntryError(
            f"'labels' must hold 0 (blank), 1 (positive), 2 (negative) or 3 (uncertain), got {wrong!r}; "
            "map other codings, such as CheXpert's 1, 0, -1, blank, to these first"
        )
    return tuple(value)


def _days(record: Mapping[str, Any]) -> float | None:
    value = record.get("days")
    if value is None:
        return _date_days(record)
    # The comparison is False for NaN too, and works for integers of any size.
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) <= sys.float_info.max:
        raise EntryError(f"'days' must be a finite number, got {_shown(record, 'days')}")
    return float(value)


def _date_days(record: Mapping[str, Any]) -> float | None:
    """Return `study_date` (YYYY-MM-DD or YYYYMMDD) as days since year 1."""
    value = record.get("study_date")
    if value is None or value == "":
        return None
    digits = str(value).replace("-", "")
    try:
        if not (len(digits) == 8 and digits.isdecimal()):
            raise ValueError("not eight digits")
        return float(date(int(digits[:4]), int(digits[4:6]), int(digits[6:])).toordinal())
    except ValueError:
        shown = _shown(record, "study_date")
        raise EntryError(f"'study_date' must be YYYY-MM-DD or YYYYMMDD, got {shown}") from None

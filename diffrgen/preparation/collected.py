"""A study as any collection gives it, and the values that collections write in different ways."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any, Literal

from diffrgen.errors import DataError
from diffrgen.preparation.options import SectionChoice
from diffrgen.preparation.views import ViewedImage
from diffrgen.records import NO_SECTIONS, Sections, Split
from diffrgen.records.entry import is_empty_report

DICOM_AGE = re.compile(r"([0-9]{1,3})([DWMY])?")
UNITS_A_YEAR = {"D": 365.25, "W": 52.18, "M": 12.0, "Y": 1.0, None: 1.0}
SEXES = {"f": "F", "female": "F", "m": "M", "male": "M"}


@dataclass(frozen=True, slots=True)
class CollectedStudy:
    """One study of a collection.

    order: of the patient's studies, a day or a running number, None if unknown; day: the day since year 1.
    images: paths below the images folder, with their views. age in years; sex F or M. labels: 14 states. more: further
    fields of the record.
    """

    id: str
    patient: str
    split: Split
    images: tuple[ViewedImage, ...]
    sections: Sections = NO_SECTIONS
    order: float | None = None
    day: int | None = None
    age: float | None = None
    sex: str | None = None
    labels: tuple[int, ...] | None = None
    more: tuple[tuple[str, Any], ...] = ()

    def text(self, section: SectionChoice) -> str:
        """Return the text of `section`, of both findings, then impression; "" if it has no word."""
        names = ("findings", "impression") if section == "both" else (section,)
        return " ".join(text for name in names if not is_empty_report(text := getattr(self.sections, name)))

    def known(self) -> dict[str, Any]:
        """Return the known fields of the study's record, other than text and images."""
        fields = {
            "labels": None if self.labels is None else list(self.labels),
            "study_date": None if self.day is None else date.fromordinal(self.day).isoformat(),
            "days": self.day,
            "age": self.age,
            "sex": self.sex,
        }
        return {name: value for name, value in fields.items() if value is not None} | dict(self.more)


def field_text(record: Mapping[str, Any], field: str, place: str) -> str:
    """Return a field of `record` as text, "" if it is absent; DataError that names `place` where it is no text or number."""
    value = record.get(field)
    if value is None:
        return ""
    if isinstance(value, (str, int, float)):
        return str(value)
    raise DataError(f"{place}: expected {field} as a text, got {value!r:.80}")


def single_spaced(text: str | None) -> str:
    """Return `text` with single spaces for all white space, "" for None and for what table programs write for none."""
    words = " ".join((text or "").split())
    return "" if words.lower() in ("nan", "none", "null") else words


def age_years(text: str | None) -> float | None:
    """Return an age in years from a number or DICOM's age string; None if it is neither.

    >>> age_years("014Y"), age_years("006M"), age_years("63.0"), age_years("60-70")
    (14.0, 0.5, 63.0, None)
    """
    text = (text or "").strip().upper()
    match = DICOM_AGE.fullmatch(text.removesuffix(".0"))
    return None if match is None else round(int(match[1]) / UNITS_A_YEAR[match[2]], 2)


def sex_of(text: str | None) -> Literal["F", "M"] | None:
    """Return F or M for the names that collections give; None for any other."""
    return SEXES.get((text or "").strip().lower())  # type: ignore[return-value]


def day_of(text: str | None) -> int | None:
    """Return YYYYMMDD, YYYY-MM-DD or a time stamp that begins so as the day since year 1; None if it is no such day.

    >>> day_of("20140915") == day_of("2014-09-15 10:00:00") == day_of("20140915.0"), day_of("2014")
    (True, None)
    """
    digits = (text or "").strip()[:10].removesuffix(".0").replace("-", "")[:8]
    try:
        return date(int(digits[:4]), int(digits[4:6]), int(digits[6:])).toordinal() if len(digits) == 8 else None
    except ValueError:
        return None

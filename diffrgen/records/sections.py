"""The sections of a report that a record may have in addition to the text to generate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True, slots=True)
class Sections:
    """The sections of one report as the data set gives them, "" if one is missing.

    `findings` and `impression` are what the radiologist writes; the others are known before the images are read.
    """

    findings: str = ""
    impression: str = ""
    indication: str = ""
    history: str = ""
    comparison: str = ""
    technique: str = ""

    @classmethod
    def of_record(cls, record: Mapping[str, Any]) -> Sections:
        """Return the sections of a record of an annotation file.

        NOTE: a field of these names that is not a text counts as missing: files of before there were sections use the
        names for other things, such as the phantom's `findings`, an object.
        """
        texts = {name: record[name] for name in SECTION_NAMES if isinstance(record.get(name), str)}
        return cls(**texts) if any(texts.values()) else NO_SECTIONS

    def to_record(self) -> dict[str, str]:
        """Return the sections that are there, by name.

        >>> Sections(findings="Clear lungs.").to_record()
        {'findings': 'Clear lungs.'}
        """
        return {name: text for name in SECTION_NAMES if (text := getattr(self, name))}


SECTION_NAMES: tuple[str, ...] = tuple(field.name for field in fields(Sections))
NO_SECTIONS = Sections()

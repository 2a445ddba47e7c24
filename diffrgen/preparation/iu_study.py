"""One IU X-Ray study, the same from Open-i's XML and from Kaggle's tables."""

from __future__ import annotations

import re
from dataclasses import dataclass

from diffrgen.preparation.options import SectionChoice
from diffrgen.preparation.views import ViewedImage
from diffrgen.records import Sections
from diffrgen.records.entry import is_empty_report

STUDY_ID = re.compile(r"(?:CXR)?([0-9]{1,9})(?:_.*)?")


@dataclass(frozen=True, slots=True)
class IuStudy:
    """One study, which is also one patient: IU X-Ray does not identify patients with several studies.

    `number` is Open-i's and Kaggle's (uId CXR1 -> "1"); texts are single-spaced, "" if a section is missing;
    image names are file names.
    """

    number: str
    sections: Sections
    images: tuple[ViewedImage, ...]

    def text(self, section: SectionChoice) -> str:
        """Return the text of `section`, "" if it has no word."""
        texts = {
            "findings": [self.sections.findings],
            "impression": [self.sections.impression],
            "both": [self.sections.findings, self.sections.impression],
        }[section]
        return " ".join(text for text in texts if not is_empty_report(text))


def study_number(name: str) -> str | None:
    """Return the number in an id of any of the sources, None if there is none.

    >>> study_number("CXR2384_IM-0942"), study_number("7"), study_number("s7")
    ('2384', '7', None)
    """
    match = STUDY_ID.fullmatch(name)
    return match[1] if match else None

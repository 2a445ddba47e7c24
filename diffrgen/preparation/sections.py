"""The sections of a MIMIC-CXR report: findings, impression and clinical context, identified by their headings.

The rules follow PhysioNet's own section parser (MIT-LCP/mimic-cxr, txt/section_parser.py): a section starts at a
heading in capitals at the start of a line, a heading that names views is a report's title and its text counts as
findings, the last section of a name counts, empty ones do not.

NOTE: four things differ. Text before FINAL REPORT, addenda and wet reads are left out by their form, not by a list
of study ids; FINDINGS comes before a title's text; headings without colon or with one capital ("Impression:") count;
items such as "LUNGS: Clear." stay in the findings or impression that they stand in, with their names.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from diffrgen.preparation.options import CombinedAs, SectionChoice
from diffrgen.records import Sections
from diffrgen.records.entry import is_empty_report

Kind = Literal["findings", "impression", "combined", "title", "context", "aside", "other"]
ContextName = Literal["indication", "history", "comparison", "technique"]

# One alternative a line: a ruled line, FINAL REPORT, an addendum or wet read, a heading in capitals, a main heading.
HEADING = re.compile(
    r"""^[ \t]*(?:
      (?P<rule>_{10,})[ \t]*$
    | (?P<final>FINAL[ ]REPORT)[ \t]*(?::[ \t]*)?$
    | (?P<aside>(?:FINAL[ ])?ADDENDUM\b|(?:PRELIMINARY[ ])?WET[ ]?READ\b)(?:[^:\n]{0,30}:)?
    | (?P<name>[A-Z][A-Z ()/,&-]*):(?=\s|$)
    | (?P<main>(?i:(?-i:F)INDINGS?(?:\s*(?:AND|&|/)\s*IMPRESSIONS?)?|(?-i:I)MPRESSIONS?))(?::(?=\s|$)|[ \t]*$)
    )""",
    re.MULTILINE | re.VERBOSE,
)
MAIN: tuple[Kind, ...] = ("findings", "impression", "combined", "title")
BLANK_LINE = re.compile(r"\n[ \t]*\n")
TITLE = re.compile(
    "chest|portable|pa and lat|lateral and pa|ap and lat|lateral and ap|frontal and|two views|one view|"
    "frontal view|pa view|ap view|lateral view|bone window|frontal upright|frontal semi-upright|ribs"
)
CONTEXT = re.compile(
    "history|comparison|^(?:indication|technique|exam|type of exam|reason for|clinical|reference exam)"
)
# Within findings and impression any other heading is an item of the section, unless it concerns the report or people ...
NO_ITEM = re.compile(
    r"\b(?:notif|recommend|comment|pfi\b|provisional|preliminary|date\b|dob\b|time\b|procedure|diagnos|summary|report|discuss|"
    r"physician|doctor|attending|resident|radiolog|dictat|sign|transcri|review|contact|communic|critical|accession|mrn\b|"
    r"patient|name\b|medication|allerg|contrast|dose\b|fluoro|note\b|nb\b|opinion|assess|plan\b|request|order|department|"
    r"attest|teach|follow|read\b|information|protocol|study|exam)"
)
# ... or a title, which names the chest alone or views.
VIEWS = re.compile(
    r"^chest$|view|portable|\bpa\b|\bap\b|lateral|frontal|upright|radiograph|x-?ray|film|\b(?:two|one|single)\b"
)


@dataclass(frozen=True, slots=True)
class Section:
    """One section: what its heading makes it, its text with line breaks, and the heading, "" for none."""

    kind: Kind
    text: str
    heading: str = ""


@dataclass(frozen=True, slots=True)
class ChosenText:
    """The text taken from a report, single-spaced, or "" and the reason why there is none."""

    text: str
    reason: str | None = None


def split_sections(report: str) -> list[Section]:
    """Return the sections of `report` in order, the text before the first heading as "other".

    What stands before FINAL REPORT is left out. So is an addendum or wet read with its own headings, to its end:
    a ruled line, FINAL REPORT, or, where no findings and no impression came before, the next EXAMINATION,
    INDICATION, HISTORY, TECHNIQUE or COMPARISON.
    """
    text = report.replace("\r\n", "\n")
    sections: list[Section] = []
    kind: Kind = "other"
    heading, start = "", 0
    begun = False
    for match in HEADING.finditer(text):
        if kind in MAIN and match["name"] and is_item(match["name"]):
            continue
        begun |= _add(sections, Section(kind, text[start : match.start()], heading)) in MAIN
        heading, start = match["name"] or match["main"] or "", match.end()
        if match["final"]:
            sections.clear()
            kind, begun = "other", False
        else:
            kind = _next_kind(kind, match, begun=begun)
    _add(sections, Section(kind, text[start:], heading))
    return sections


def choose_text(
    report: str, section: SectionChoice, *, combined: CombinedAs = "impression", last_paragraph: bool = False
) -> ChosenText:
    """Return the text of `section` in `report`.

    both: findings, then impression, where at least one is there. combined: as what FINDINGS AND IMPRESSION counts
    where the section itself is not there. last_paragraph: a report with neither section gives what follows the
    first paragraph of its last section.

    >>> choose_text(" FINAL REPORT\\n FINDINGS:  Clear\\n lungs.\\n \\n IMPRESSION:  Normal.\\n", "findings").text
    'Clear lungs.'
    """
    sections = split_sections(report)
    together = _last(sections, "combined")
    own = _own_texts(sections)
    texts = own | {combined: own[combined] or together}
    chosen = " ".join(filter(None, texts.values() if section == "both" else [texts[section]]))
    if chosen:
        return ChosenText(chosen)
    there = [f"{name} only" for name in own if own[name]] + ["findings and impression in one only"] * bool(together)
    if there:
        return ChosenText("", f"report without a section of {section}, {there[0]}")
    if last_paragraph and (text := _last_paragraph(sections)):
        return ChosenText(text)
    return ChosenText("", "report with neither findings nor impression")


def report_sections(report: str, *, combined: CombinedAs = "impression") -> Sections:
    """Return the sections of `report`, single-spaced, of each name the last; combined: as in `choose_text`.

    A reason for the examination counts as indication, clinical information as history, a reference examination as
    comparison.

    >>> report_sections("INDICATION:  Cough.\\n FINDINGS:  Clear.\\n").to_record()
    {'findings': 'Clear.', 'indication': 'Cough.'}
    """
    sections = split_sections(report)
    own = _own_texts(sections)
    texts = own | {combined: own[combined] or _last(sections, "combined")}
    for section in sections:
        name = context_name(section.heading) if section.kind == "context" else None
        if name is not None and (text := " ".join(section.text.split())):
            texts[name] = text
    return Sections(**texts)


@lru_cache(maxsize=4096)
def context_name(heading: str) -> ContextName | None:
    """Return which section the heading of a context section (any case, without colon) names; None for another one.

    >>> context_name("REASON FOR EXAM"), context_name("CLINICAL HISTORY"), context_name("EXAMINATION")
    ('indication', 'history', None)
    """
    words = " ".join(heading.lower().split())
    named: dict[ContextName, str] = {
        "indication": r"indication|^reason for",
        "history": "history|^clinical",
        "comparison": "comparison|^reference exam",
        "technique": "^technique",
    }
    found = next((name for name, pattern in named.items() if re.search(pattern, words)), None)
    # Misspelt headings that `section_kind` takes as context.
    misspelt: dict[str, ContextName] = {"indication": "indication", "comparison": "comparison"}
    return found or next((misspelt[name] for name in difflib.get_close_matches(words, misspelt, 1, 0.85)), None)


@lru_cache(maxsize=4096)
def section_kind(name: str) -> Kind:
    """Return what the heading `name` (any case, without colon) makes of its text."""
    name = " ".join(name.lower().split())
    if "impression" in name:
        return "combined" if "finding" in name else "impression"
    if name == "conclusion":
        return "impression"
    if "finding" in name:
        return "findings"
    if "addendum" in name:
        return "aside"
    if CONTEXT.search(name):
        return "context"
    if TITLE.search(name):
        return "title"
    # Misspelt headings: FINDNGS, IMPRESSOIN and the like.
    close = difflib.get_close_matches(name, ("findings", "impression", "indication", "comparison"), 1, 0.85)
    kinds: dict[str, Kind] = {"findings": "findings", "impression": "impression"}
    return kinds.get(close[0], "context") if close else "other"


@lru_cache(maxsize=4096)
def is_item(name: str) -> bool:
    """Return whether the heading `name`, within findings or impression, begins an item of that section, such as LUNGS.

    >>> is_item("LINES AND TUBES"), is_item("CHEST TUBES"), is_item("NOTIFICATION"), is_item("PA AND LATERAL CHEST")
    (True, True, False, False)
    """
    words = " ".join(name.lower().split())
    kind = section_kind(name)
    return (kind == "other" and not NO_ITEM.search(words)) or (kind == "title" and not VIEWS.search(words))


def _next_kind(kind: Kind, match: re.Match[str], *, begun: bool) -> Kind:
    """Return the kind of the text after the heading `match`, given that of the text before it.

    begun: a main section, with words, came before.
    """
    if match["rule"]:
        return "other"
    if match["aside"]:
        return "aside"
    following = section_kind(match["name"] or match["main"])
    if kind == "aside":
        return "aside" if begun or following != "context" else following
    return following


def _own_texts(sections: list[Section]) -> dict[str, str]:
    """Return findings and impression from sections of their own; a title's text counts as findings."""
    return {
        "findings": _last(sections, "findings") or _last(sections, "title"),
        "impression": _last(sections, "impression"),
    }


def _add(sections: list[Section], section: Section) -> Kind | None:
    """Add a section and return its kind; asides and main sections without a word (titles, a heading given twice) are left
    out.
    """
    wordless = section.kind not in ("context", "other") and is_empty_report(section.text)
    if section.kind == "aside" or wordless:
        return None
    sections.append(section)
    return section.kind


def _last(sections: list[Section], kind: Kind) -> str:
    """Return the text of the last section of `kind`, single-spaced; "" without one."""
    return next((" ".join(section.text.split()) for section in reversed(sections) if section.kind == kind), "")


def _last_paragraph(sections: list[Section]) -> str:
    if not sections:
        return ""
    _, *rest = BLANK_LINE.split(sections[-1].text.strip())
    text = " ".join(" ".join(rest).split())
    return "" if is_empty_report(text) else text

"""Selects the fields of a prediction file with the generated report, its reference and the study's id."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from diffrgen.errors import DataError
from diffrgen.ranges import check_fields

Sections = Literal["findings", "impression", "both"]
ID = "id"
OTHER_IDS = ("study_id", "dicom_id", "image_id", "uid")
IDS = (ID, *OTHER_IDS)
REXRANK = "model_prediction"
# Names that belong to one side only.
HYPOTHESES = (
    *("hypothesis", "prediction", REXRANK, "generated", "generated_report", "generated_reports", "candidate"),
    *("caption", "res", "hyp"),
)
REFERENCES = ("reference", "reference_report", "ground_truth", "target", "ref", "gts", "gt", "labels")
# Names of either side: the generated report, unless the file also has a column of `HYPOTHESES`.
REPORT, SECTIONS = "report", ("findings", "impression")
REFERENCE_SECTIONS = ("section_findings", "section_impression")
NAMES = {*IDS, *HYPOTHESES, *REFERENCES, REPORT, *SECTIONS, *REFERENCE_SECTIONS}
HEADING = re.compile(r"(?:^|(?<=\s))(findings|impression)\s*:", re.IGNORECASE)

Columns = tuple[str, ...]
"""Fields whose texts are joined by a blank."""


@dataclass(frozen=True)
class ColumnOptions:
    """The fields of a prediction file, if its names are ambiguous."""

    hypothesis_column: tuple[str, ...] = ()
    """Field of the generated report; several fields are concatenated. Default: hypothesis, prediction,
    model_prediction, generated, generated_report(s), candidate, caption, res or hyp; else report; else findings and
    impression."""
    reference_column: tuple[str, ...] = ()
    """Field of the reference; several fields are concatenated. Default: reference, reference_report, ground_truth,
    target, ref, gts, gt or labels (if it is text); if the file also has a generated report: report, or section_findings
    and section_impression."""
    id_column: str | None = None
    """Field of the study's id. Default: id, else study_id, dicom_id, image_id or uid."""
    sections: Sections | None = None
    """Score findings, impression or both: the columns of that name, or in texts with the headings `Findings:` and
    `Impression:` the part under that heading. Default: complete texts."""

    def __post_init__(self) -> None:
        check_fields(self, "--")


class Choice(NamedTuple):
    """The fields that were chosen, none for a reference or an id that the file lacks."""

    hypothesis: Columns
    reference: Columns
    id: str | None
    sections: Sections | None

    def __str__(self) -> str:
        """Return the choice as the command prints it."""
        parts = [f"generated reports: {' + '.join(self.hypothesis) or 'none'}"]
        parts.append(f"references: {' + '.join(self.reference) or 'none'}")
        parts.append(f"ids: {self.id or 'none'}")
        if self.sections is not None:
            parts.append(f"sections: {self.sections}")
        return ", ".join(parts)


def choose_columns(record: Mapping[str, object], options: ColumnOptions, place: str) -> Choice:
    """Return the fields of `record` that hold the generated report, its reference and the id.

    Raises:
        DataError: no field holds a generated report, a column that was asked for is absent, or two fields qualify and
            nothing says which; `place` stands before the message.
    """
    hypothesis = _asked(record, options.hypothesis_column, place) or _one(
        _hypotheses(record, options), "generated report", "--hypothesis-column", place
    )
    if not hypothesis:
        expected = ", ".join([*HYPOTHESES, REPORT, " + ".join(SECTIONS)])
        raise DataError(
            f"{place}: expected one of {expected}, got {', '.join(map(str, record)) or 'nothing'}; name the field with "
            "--hypothesis-column"
        )
    reference, sections = _reference(record, hypothesis, options, place)
    return Choice(hypothesis, reference, _id(record, options, place), sections)


def choose_reference(record: Mapping[str, object], options: ColumnOptions, place: str) -> Choice:
    """Return the fields of a record of a file of references alone, where `report` is the reference."""
    asked = _asked(record, options.reference_column, place)
    found = asked or _one(_references(record, (), options), "reference", "--reference-column", place)
    if not found:
        expected = ", ".join([*REFERENCES, REPORT, " + ".join(SECTIONS), " + ".join(REFERENCE_SECTIONS)])
        raise DataError(f"{place}: expected one of {expected}, got {', '.join(map(str, record)) or 'nothing'}")
    return Choice((), found, _id(record, options, place), options.sections)


def has_header(fields: Sequence[str], options: ColumnOptions) -> bool:
    """Return whether the first row of a table names its columns: R2Gen writes tables of one column without names."""
    named = {*NAMES, *options.hypothesis_column, *options.reference_column, options.id_column}
    return len(fields) != 1 or fields[0] in named


def joined_text(texts: Iterable[str], sections: Sections | None) -> str:
    """Return the texts joined, each reduced to `sections` if it has headings.

    >>> joined_text(["Findings: no edema. Impression: normal."], "impression")
    'normal.'
    """
    return " ".join(filter(None, (text if sections is None else _section(text, sections) for text in texts)))


def is_text(value: object) -> bool:
    """Return whether a field holds words, not numbers such as the labels of findings."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    return isinstance(value, str) and any(character.isalpha() for character in value)


def _section(text: str, sections: Sections) -> str:
    headings = list(HEADING.finditer(text))
    if not headings:
        return text
    ends = [heading.start() for heading in headings[1:]] + [len(text)]
    parts = [(found[1].lower(), text[found.end() : end].strip()) for found, end in zip(headings, ends, strict=True)]
    before = text[: headings[0].start()].strip()
    kept = [part for name, part in parts if sections in (name, "both")]
    return " ".join(filter(None, [before if sections == "both" else "", *kept]))


def _hypotheses(record: Mapping[str, object], options: ColumnOptions) -> list[Columns]:
    taken = {*options.reference_column, options.id_column}
    strong: list[Columns] = [(name,) for name in HYPOTHESES if name in record and name not in taken]
    if strong:
        return strong
    plain: list[Columns] = [(REPORT,)] if REPORT in record and REPORT not in taken else []
    return _with_sections(record, plain, SECTIONS, options, taken)


def _references(record: Mapping[str, object], hypothesis: Columns, options: ColumnOptions) -> list[Columns]:
    taken = {*hypothesis, options.id_column}
    found: list[Columns] = [
        (name,)
        for name in (*REFERENCES, REPORT)
        if name not in taken and _given(record, name) and (name != "labels" or is_text(record[name]))
    ]
    for names in (SECTIONS, REFERENCE_SECTIONS):
        found = _with_sections(record, found, names, options, taken)
    return found


def _with_sections(
    record: Mapping[str, object], plain: list[Columns], names: Columns, options: ColumnOptions, taken: Iterable[str | None]
) -> list[Columns]:
    """Add the columns of sections; with `sections`, keep only those."""
    wanted = {"findings": names[:1], "impression": names[1:]}.get(options.sections or "both", names)
    found = tuple(name for name in wanted if name in record and name not in set(taken))
    if not found:
        return plain
    return [found] if options.sections is not None else [*plain, found]


def _reference(
    record: Mapping[str, object], hypothesis: Columns, options: ColumnOptions, place: str
) -> tuple[Columns, Sections | None]:
    asked = _asked(record, options.reference_column, place)
    if asked:
        return asked, options.sections
    found = _references(record, hypothesis, options)
    if hypothesis == (REXRANK,) and {(REPORT,), REFERENCE_SECTIONS} == set(found):
        # ReXrank's file holds the same text twice, and its own evaluation takes the sections.
        return REFERENCE_SECTIONS, "both"
    return _one(found, "reference", "--reference-column", place), options.sections


def _id(record: Mapping[str, object], options: ColumnOptions, place: str) -> str | None:
    if options.id_column is not None:
        return _asked(record, (options.id_column,), place)[0]
    if _given(record, ID):
        return ID
    found = _one([(name,) for name in OTHER_IDS if _given(record, name)], "id", "--id-column", place)
    return found[0] if found else None


def _given(record: Mapping[str, object], name: str) -> bool:
    return record.get(name) is not None


def _asked(record: Mapping[str, object], names: Columns, place: str) -> Columns:
    absent = [name for name in names if name not in record]
    if absent:
        raise DataError(f"{place}: expected the column {absent[0]!r}, got {', '.join(map(str, record)) or 'nothing'}")
    return names


def _one(found: list[Columns], what: str, option: str, place: str) -> Columns:
    if len(found) > 1:
        names = " and ".join(" + ".join(names) for names in found)
        sections = " or --sections" if any(len(names) > 1 for names in found) else ""
        raise DataError(f"{place}: expected one {what}, got the candidates {names}; choose with {option}{sections}")
    return found[0] if found else ()

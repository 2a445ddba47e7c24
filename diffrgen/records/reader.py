"""The records of one annotation file turned into studies, unusable ones collected with the reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from diffrgen.errors import DataError
from diffrgen.records.entry import Entry, EntryError, is_empty_report, parse_entry
from diffrgen.records.location import FileListing, path_fault
from diffrgen.records.study import Split, Study

SHOWN_FAULTS = 5


@dataclass
class RecordReader:
    """Reads the records of `source`, whose images lie under `root`.

    `files` answers whether an image exists; None: nobody looks. `check_reports`: a report without a word is a fault, in
    every split: nothing can be learnt from it in train, and nothing be scored against it in val and test. `faults`
    collects the records that may be skipped; anything worse is raised as DataError.
    """

    source: Path
    root: Path
    files: FileListing | None
    check_reports: bool = True
    faults: list[str] = field(default_factory=list)
    places: dict[str, str] = field(default_factory=dict)
    label_width: int | None = None
    has_prior_ids: bool = False

    def studies(self, split: Split, records: list[Any]) -> tuple[Study, ...]:
        """Return the usable studies of `records`; unusable ones are added to `faults`."""
        studies = []
        for position, record in enumerate(records):
            place = f"{split}[{position}]"
            if isinstance(record, Mapping) and record.get("id") is not None:
                place += f" (id {str(record['id'])[:80]!r})"
            entry = self._entry(record, place)
            fault = self._fault(entry)
            if fault is None:
                studies.append(self._study(entry, split))
            else:
                self.faults.append(f"{place}: {fault}")
        return tuple(studies)

    def report_faults(self) -> str:
        """Say which records are unusable and what to do."""
        shown = "\n  ".join(self.faults[:SHOWN_FAULTS])
        more = len(self.faults) - SHOWN_FAULTS
        rest = f"\n  and {more} more" if more > 0 else ""
        return (
            f"{self.source}: {len(self.faults)} unusable record(s); correct them or leave them out with "
            f"--skip-broken:\n  {shown}{rest}"
        )

    def _entry(self, record: object, place: str) -> Entry:
        """Return the fields of `record`; DataError for what skipping must not hide."""
        try:
            entry = parse_entry(record)
        except EntryError as error:
            raise DataError(f"{self.source}: {place}: {error}") from None
        fault = next((fault for fault in map(path_fault, entry.image_paths) if fault is not None), None)
        if fault is not None:
            raise DataError(f"{self.source}: {place}: {fault}")
        self._check_against_others(entry, place)
        self.has_prior_ids |= entry.prior_id is not None
        return entry

    def _check_against_others(self, entry: Entry, place: str) -> None:
        first = self.places.setdefault(entry.id, place)
        if first != place:
            raise DataError(f"{self.source}: {place}: this id is also that of {first}; ids must be unique")
        if entry.labels is None:
            return
        self.label_width = self.label_width or len(entry.labels)
        if len(entry.labels) != self.label_width:
            raise DataError(
                f"{self.source}: {place}: expected {self.label_width} labels as in the records before, "
                f"got {len(entry.labels)}"
            )

    def _fault(self, entry: Entry) -> str | None:
        if self.check_reports and is_empty_report(entry.report):
            return f"report without a word, {entry.report[:40]!r}"
        if self.files is None:
            return None
        missing = next((path for path in entry.image_paths if path not in self.files), None)
        if missing is None:
            return None
        hint = "paths are written with /, this one has backslashes" if "\\" in missing else "another one: --images"
        return f"image {missing!r} is not in the folder {self.root} ({hint})"

    def _study(self, entry: Entry, split: Split) -> Study:
        return Study(
            id=entry.id,
            report=entry.report,
            images=tuple(self.root / path for path in entry.image_paths),
            split=split,
            labels=entry.labels,
            patient_id=entry.patient_id,
            days=entry.days,
            view=entry.view,
            prior_id=entry.prior_id,
        )

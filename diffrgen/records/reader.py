"""Converts the records of one annotation file to studies and collects unusable ones with the reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from diffrgen.errors import DataError
from diffrgen.records.entry import Entry, EntryError, is_empty_report, parse_entry
from diffrgen.records.location import FileListing, path_fault
from diffrgen.records.study import Split, Study
from diffrgen.records.view_owners import ViewOwners
from diffrgen.records.views import MAX_VIEWS, ViewChoice, ViewKind, chosen_view, view_kind

SHOWN_FAULTS = 5


@dataclass
class RecordReader:
    """Reads the records of `source`, whose images lie under `root`.

    `files` knows whether an image exists; None: not checked. `check_reports`: a report without a word is a fault, in
    every split: it is useless for training and as a reference. `views` selects
    among a study's images; `kinds` has their kinds by path if records do not name them. With `skip_broken`, a
    missing image is left out of a study that has others. `faults` and `image_faults` collect the records and images that
    may be skipped; anything worse is raised as DataError.
    """

    source: Path
    root: Path
    files: FileListing | None
    check_reports: bool = True
    views: ViewChoice = "all"
    kinds: Mapping[str, ViewKind] = field(default_factory=dict)
    skip_broken: bool = False
    faults: list[str] = field(default_factory=list)
    image_faults: list[str] = field(default_factory=list)
    places: dict[str, str] = field(default_factory=dict)
    owners: ViewOwners = field(default_factory=ViewOwners)
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
            images, fault = self._images(entry)
            if self.check_reports and is_empty_report(entry.report):
                fault = f"report without a word, {entry.report[:40]!r}"
            elif images and self.skip_broken:
                self.image_faults += [f"{place}: {fault}"] if fault else []
                fault = None
            if fault is None:
                studies.append(self._study(entry, split, images))
            else:
                self.faults.append(f"{place}: {fault}")
        return tuple(studies)

    def report_faults(self) -> str:
        """Return a message with the unusable records and the remedy."""
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
        fault = self.owners.fault(entry)
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

    def _images(self, entry: Entry) -> tuple[dict[str, ViewKind], str | None]:
        """Return the images of `entry` that are used and can be, with their kinds of view, and what is wrong with it."""
        listed = entry.image_paths
        if entry.views:
            kinds = tuple(map(view_kind, entry.views))
        else:
            # A single `view` is that of the first image.
            names = (entry.view, *[None] * (len(listed) - 1))
            kinds = tuple(self.kinds.get(path) or view_kind(name) for path, name in zip(listed, names, strict=True))
        chosen = chosen_view(kinds, self.views)
        images = dict(zip(listed[chosen], kinds[chosen], strict=True))
        if len(images) > MAX_VIEWS:
            return {}, f"expected at most {MAX_VIEWS} images, got {len(images)} (one alone: --views frontal or first)"
        missing = [] if self.files is None else [path for path in images if path not in self.files]
        return {path: kind for path, kind in images.items() if path not in missing}, self._fault_of(missing)

    def _fault_of(self, missing: list[str]) -> str | None:
        if not missing:
            return None
        hint = "paths are written with /, this one has backslashes" if "\\" in missing[0] else "another one: --images"
        return f"image {missing[0]!r} is not in the folder {self.root} ({hint})"

    def _study(self, entry: Entry, split: Split, images: Mapping[str, ViewKind]) -> Study:
        return Study(
            id=entry.id,
            report=entry.report,
            images=tuple(self.root / path for path in images),
            views=tuple(images.values()),
            split=split,
            labels=entry.labels,
            patient_id=entry.patient_id,
            days=entry.days,
            view=entry.view,
            prior_id=entry.prior_id,
            sections=entry.sections,
        )

"""One study: an examination's images, its report and what is known of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")


@dataclass(frozen=True, slots=True)
class Study:
    """One study of one patient.

    `report` is the text as the annotation gives it, before cleaning. `labels` holds one state a finding (see
    `diffrgen.labels.State`) or is None where the data set brings none. `days` orders the studies of one patient;
    `prior_id` names the patient's study before this one.
    """

    id: str
    report: str
    images: tuple[Path, ...]
    split: Split
    labels: tuple[int, ...] | None = None
    patient_id: str | None = None
    days: float | None = None
    view: str | None = None
    prior_id: str | None = None


@dataclass(frozen=True, slots=True)
class StudySplits:
    """The studies of a data set by split; `source` is the annotation file they were read from."""

    source: Path
    train: tuple[Study, ...]
    val: tuple[Study, ...]
    test: tuple[Study, ...]
    skipped: tuple[str, ...] = field(default=())

    def __getitem__(self, split: str) -> tuple[Study, ...]:
        """Return the studies of `split`; ValueError for a name that is none of train, val, test."""
        if split not in SPLITS:
            raise ValueError(f"expected a split out of {', '.join(SPLITS)}, got {split!r}")
        return getattr(self, split)

    def __iter__(self) -> Iterator[Study]:
        """Iterate over every study, train first."""
        yield from self.train
        yield from self.val
        yield from self.test

    def by_id(self) -> dict[str, Study]:
        """Return every study by its id."""
        return {study.id: study for study in self}

"""One study: an examination's images, its report and further data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from diffrgen.records.sections import NO_SECTIONS, Sections
from diffrgen.records.views import ViewKind

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")


@dataclass(frozen=True, slots=True)
class Study:
    """One study of one patient.

    `report` is the text as the annotation gives it, before cleaning. `labels` holds one state a finding (see
    `diffrgen.labels.State`) or is None if the data set brings none. `days` orders the studies of one patient;
    `prior_id` names the patient's study before this one. `view` is the view as the annotation names it; `views` holds the
    kind of each image's view (default: unknown). `sections` holds the sections of the report that the annotation gives.
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
    views: tuple[ViewKind, ...] = ()
    sections: Sections = NO_SECTIONS

    def __post_init__(self) -> None:
        if not self.views:
            object.__setattr__(self, "views", ("unknown",) * len(self.images))
        if len(self.views) != len(self.images):
            raise ValueError(f"expected one view an image, got {len(self.views)} for {len(self.images)} images")


@dataclass(frozen=True, slots=True)
class StudySplits:
    """The studies of a data set by split; `source` is the annotation file they were read from."""

    source: Path
    train: tuple[Study, ...]
    val: tuple[Study, ...]
    test: tuple[Study, ...]
    skipped: tuple[str, ...] = field(default=())
    """Why each record that was left out was."""
    skipped_images: tuple[str, ...] = field(default=())
    """Why each image that was left out of a study with others was."""

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

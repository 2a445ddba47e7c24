"""Statistics of a run's data, stored as data.json, so that they are known without the data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from diffrgen.pipeline.options import PHANTOM, DataOptions
from diffrgen.pipeline.source import StudySource
from diffrgen.records import SPLITS, Split, Study
from diffrgen.staging import file_digest


@dataclass(frozen=True)
class SplitSummary:
    """Counts of one split. patients: None if a study names none; dated: studies with a date, followed: those
    with a prior study of their patient in the same split; labels: who read the states, "data" where they came along.
    """

    studies: int
    images: int
    patients: int | None
    dated: int
    followed: int
    labels: str


@dataclass(frozen=True)
class DataSummary:
    """The data set by the name of its file and that of its folder, never by its whole path; the file's SHA-256 (None for
    the phantom), the splits, and the records that were left out as broken.
    """

    name: str
    sha256: str | None
    splits: dict[Split, SplitSummary]
    skipped: int

    @classmethod
    def of(cls, options: DataOptions, source: StudySource) -> DataSummary:
        """Return the summary of the studies that `options` named and `source` holds."""
        path = source.splits.source
        phantom = options.data == PHANTOM
        return cls(
            name=PHANTOM if phantom else "/".join(path.resolve().parts[-2:]),
            sha256=None if phantom else file_digest(path),
            splits={split: _summary(source.splits[split], source.truth(split)) for split in SPLITS},
            skipped=len(source.splits.skipped),
        )


def _summary(studies: Sequence[Study], labels: str) -> SplitSummary:
    patients = [study.patient_id for study in studies]
    ids = {study.id for study in studies}
    return SplitSummary(
        studies=len(studies),
        images=sum(len(study.images) for study in studies),
        patients=None if None in patients else len(set(patients)),
        dated=sum(study.days is not None for study in studies),
        followed=sum(study.prior_id in ids for study in studies),
        labels=labels,
    )

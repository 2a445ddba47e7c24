"""The job that the runner passes to a worker process: one variant with one seed."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from diffrgen.records import Split
from diffrgen.text.protocol import Protocol
from diffrgen.training.options import TrainOptions


@dataclass(frozen=True)
class Scoring:
    """How trained networks are scored: on a split, with language scores by a protocol."""

    split: Split = "test"
    protocol: Protocol = "promptmrg"


@dataclass(frozen=True)
class Job:
    """A variant, the options of its training (with its seed), how it is scored, and the file for its record; kept as job.json."""

    variant: str
    options: TrainOptions
    record: Path
    scoring: Scoring = field(default_factory=Scoring)

    @staticmethod
    def path(folder: Path) -> Path:
        """Return where the job of a run's folder is kept."""
        return folder / "job.json"

    @property
    def name(self) -> str:
        """The name of the run."""
        return f"{self.variant}-{self.options.seed}"

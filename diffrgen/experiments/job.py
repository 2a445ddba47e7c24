"""The job that the runner passes to a worker process: one variant with one seed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from diffrgen.training.options import TrainOptions


@dataclass(frozen=True)
class Job:
    """A variant, the options of its training (with its seed), and the file for its record; kept as job.json."""

    variant: str
    options: TrainOptions
    record: Path

    @staticmethod
    def path(folder: Path) -> Path:
        """Return where the job of a run's folder is kept."""
        return folder / "job.json"

    @property
    def name(self) -> str:
        """The name of the run."""
        return f"{self.variant}-{self.options.seed}"

"""The record of one run: what was trained, what it scored, and the numbers of each study behind the scores."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter, ValidationError

from diffrgen.errors import DataError
from diffrgen.experiments.job import Scoring
from diffrgen.experiments.routing import RoutingStatistics
from diffrgen.staging import replace_file
from diffrgen.training.options import TrainOptions
from diffrgen.training.summary import TrainingSummary

FORMAT_VERSION = 1


@dataclass(frozen=True)
class RunRecord:
    """One variant trained with one seed and evaluated.

    scores: the model's part of metrics.json; studies: ids of the evaluated studies; per_study: matrices by name, each study's
    row of numbers as text, so that a line of the file is a study (see `Scores.per_study`, "statements" as COUNTS).
    """

    variant: str
    seed: int
    options: TrainOptions
    parameters: int
    summary: TrainingSummary
    scores: dict[str, Any]
    routing: RoutingStatistics | None
    studies: tuple[str, ...]
    per_study: dict[str, tuple[str, ...]]
    scoring: Scoring = field(default_factory=Scoring)
    format_version: int = FORMAT_VERSION

    def numbers(self, name: str) -> np.ndarray | None:
        """Return a matrix of `per_study`, (n, K) float64; None if this run has none of that name."""
        return self._matrices.get(name)

    @cached_property
    def _matrices(self) -> dict[str, np.ndarray]:
        return {name: np.array([row.split() for row in rows], dtype=np.float64) for name, rows in self.per_study.items()}

    def save(self, path: Path) -> None:
        """Write the record as JSON; interrupted, there is none."""
        path.parent.mkdir(parents=True, exist_ok=True)
        content = TypeAdapter(RunRecord).dump_python(self, mode="json")
        replace_file(path, (json.dumps(content, indent=1) + "\n").encode())

    @classmethod
    def load(cls, path: Path) -> RunRecord:
        """Read what `save` wrote; DataError if the file holds something else."""
        try:
            record = TypeAdapter(cls).validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            raise DataError(f"{path}: needed the record of an experiment's run, got: {error}; remove it") from error
        if record.format_version != FORMAT_VERSION:
            raise DataError(f"{path}: needed format_version {FORMAT_VERSION}, got {record.format_version}; remove it")
        return record


def as_rows(matrix: np.ndarray) -> tuple[str, ...]:
    """Return each row of numbers (n, K) as text, to six significant digits."""
    return tuple(" ".join(f"{value:.6g}" for value in row) for row in matrix.tolist())

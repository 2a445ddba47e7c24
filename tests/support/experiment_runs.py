"""Records of experiments' runs that are made up, and studies to train tiny ones on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tiny_training import write_studies

from diffrgen.experiments.record import RunRecord, as_rows
from diffrgen.training.options import TrainOptions
from diffrgen.training.summary import TrainingSummary

STUDIES = ("a", "b")


def record(
    variant: str, seed: int, *, meteor: float | None = None, studies: Sequence[str] = STUDIES, **numbers: list[list[float]]
) -> RunRecord:
    """Return a run with these numbers of each study."""
    return RunRecord(
        variant=variant,
        seed=seed,
        options=TrainOptions(seed=seed),
        parameters=1234567,
        summary=TrainingSummary(7, 60.0, 0.5, 0.0, machine="none", peak_memory_gib=1.0, versions={"diffrgen": "0"}),
        scores={"nlg": {} if meteor is None else {"meteor": meteor}},
        routing=None,
        studies=tuple(studies),
        per_study={name: as_rows(np.array(matrix)) for name, matrix in numbers.items()},
    )


def write_split_studies(folder: Path) -> Path:
    """Write the random studies of `tiny_training` with a test split, and return the annotation."""
    path = write_studies(folder)
    splits = json.loads(path.read_text())
    splits["test"] = splits["train"][12:]
    splits["train"] = splits["train"][:12]
    path.write_text(json.dumps(splits))
    return path

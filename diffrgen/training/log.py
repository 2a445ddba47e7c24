"""The training log: one JSON object a line for programs, TensorBoard for people."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from torch.utils.tensorboard import SummaryWriter


class TrainingLog:
    """Appends scalars to `metrics.jsonl` and to TensorBoard event files in `tensorboard/` of a run folder.

    A disabled log (every process but the first) writes nothing.
    """

    def __init__(self, run: Path, *, enabled: bool = True) -> None:
        self.path = run / "metrics.jsonl"
        self._lines = self.path.open("a", encoding="utf-8") if enabled else None
        self._board = SummaryWriter(str(run / "tensorboard")) if enabled else None

    def write(self, phase: str, step: int, scalars: Mapping[str, float]) -> None:
        """Record the scalars of one step; `phase` (train, val, test) prefixes their TensorBoard names."""
        if self._lines is None or self._board is None:
            return
        record = {"phase": phase, "step": step, **{name: round(float(v), 6) for name, v in scalars.items()}}
        self._lines.write(json.dumps(record) + "\n")
        self._lines.flush()
        for name, value in scalars.items():
            self._board.add_scalar(f"{phase}/{name}", float(value), step)

    def __enter__(self) -> TrainingLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._lines is not None and self._board is not None:
            self._lines.close()
            self._board.close()

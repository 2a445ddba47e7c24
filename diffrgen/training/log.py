"""The training log: one JSON object a line for programs, TensorBoard for people."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType

from torch.utils.tensorboard import SummaryWriter

from diffrgen.finite import all_finite
from diffrgen.staging import replace_file
from diffrgen.training.checkpoints import Progress
from diffrgen.training.log_lines import read_log
from diffrgen.training.tracking import Track


class TrainingLog:
    """Appends scalars to `metrics.jsonl` and to TensorBoard event files in `tensorboard/` of a run folder.

    It goes on where `progress` stands: what an interrupted run wrote of later steps is dropped, for they come again. A
    disabled log (every process but the first) writes nothing. track: is given the same scalars, by their TensorBoard names.
    Raises DataError for a log that holds anything else.
    """

    def __init__(self, run: Path, progress: Progress, *, enabled: bool = True, track: Track | None = None) -> None:
        self.path, self._track = run / "metrics.jsonl", track
        if enabled:
            replace_file(self.path, b"".join(_lines_until(self.path, progress)))
        self._lines = self.path.open("a", encoding="utf-8") if enabled else None
        self._board = SummaryWriter(str(run / "tensorboard"), purge_step=progress.step + 1) if enabled else None

    def write(self, phase: str, step: int, scalars: Mapping[str, float]) -> None:
        """Record the scalars of one step; `phase` (train, val, test) prefixes their TensorBoard names.

        What is not finite is null in the file.
        """
        if self._lines is None or self._board is None:
            return
        # JSON has no NaN.
        values = {name: round(float(value), 6) if all_finite(value) else None for name, value in scalars.items()}
        self._lines.write(json.dumps({"phase": phase, "step": step, **values}) + "\n")
        self._lines.flush()
        for name, value in scalars.items():
            self._board.add_scalar(f"{phase}/{name}", float(value), step)
        if self._track is not None:
            self._track({f"{phase}/{name}": float(value) for name, value in scalars.items()}, step)

    def flush(self) -> None:
        """Flush every line to the disk, so that a checkpoint is never newer than its log."""
        if self._lines is not None:
            self._lines.flush()
            os.fsync(self._lines.fileno())

    def __enter__(self) -> TrainingLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._lines is not None and self._board is not None:
            self._lines.close()
            self._board.close()


def _lines_until(path: Path, progress: Progress) -> Iterator[bytes]:
    """Yield the complete lines of the steps that `progress` has behind it."""
    for line in read_log(path):
        if line.step <= (progress.step if line.phase == "train" else progress.validated):
            yield line.text

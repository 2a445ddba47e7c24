"""Checkpoints: the state for continuing a training, written atomically and verified before use."""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from accelerate.utils.other import load

from diffrgen.errors import DataError
from diffrgen.pipeline.settings import load_json, save_json
from diffrgen.staging import discard, file_digest, is_partial, partial_path, publish, remove

KEPT = 2
SECONDS_BETWEEN = 600.0
MANIFEST = "checkpoint.json"
FORMAT = 2


@dataclass(frozen=True)
class Progress:
    """The progress of a training: the studies taken of the current epoch, the steps done, the best validation score and the
    time so far.

    validated: the last step that a validation followed; until that has been done, an epoch's end is not passed.
    skipped: steps left out because their loss or gradient was not finite. ordered_by: the batch size that the studies of
    the current epoch are in order for, 0 before its first step.
    """

    epoch: int = 0
    studies: int = 0
    step: int = 0
    best: float = -1.0
    seconds: float = 0.0
    validated: int = 0
    skipped: int = 0
    ordered_by: int = 0


@dataclass(frozen=True)
class Manifest:
    """Written last, as checkpoint.json: the progress, the number of processes, SHA-256 of every other file by name.

    format: 1, where it is missing, counted the progress in batches.
    """

    progress: Progress
    processes: int
    files: dict[str, str]
    format: int = 1


class Checkpoints:
    """Writes and reads the checkpoints `step-N` and `step-N-validated` in `folder`; the newest two are kept.

    A checkpoint holds model (Eq. 9's prior among its buffers), optimiser, schedule, scaler, the random state of every
    process and the progress. The Gumbel temperature and the order of the studies follow from the progress.
    `every`: steps between checkpoints within an epoch, or None for ten minutes between them.
    """

    def __init__(self, accelerator: Accelerator, folder: Path, *, every: int | None = None) -> None:
        self.accelerator, self.folder, self.every = accelerator, folder, every
        self.saved = time.monotonic()

    def due(self, step: int) -> bool:
        """Return whether to write one after `step`, as this process sees it."""
        if self.every is not None:
            return step % self.every == 0
        return time.monotonic() - self.saved >= SECONDS_BETWEEN

    def save(self, progress: Progress) -> Path:
        """Write a checkpoint under a temporary name, flush it to the disk, rename it, and remove the older ones.

        Where it cannot be written, none of it is left and the older ones are whole.
        """
        ending = "-validated" if progress.validated == progress.step else ""
        final = self.folder / f"step-{progress.step:08d}{ending}"
        stage = partial_path(final)
        try:
            self._write(stage, final, progress)
        finally:
            if self.accelerator.is_main_process:
                remove(stage)
        self.saved = time.monotonic()
        return final

    def _write(self, stage: Path, final: Path, progress: Progress) -> None:
        accelerator = self.accelerator
        if accelerator.is_main_process:
            remove(stage)
        accelerator.wait_for_everyone()
        accelerator.save_state(str(stage), safe_serialization=True)
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            save_json(Manifest(progress, accelerator.num_processes, _digests(stage), FORMAT), stage / MANIFEST)
            discard(final)
            publish(stage, final)
            self._remove_older(final)
        accelerator.wait_for_everyone()

    def _remove_older(self, newest: Path) -> None:
        for path in no_longer_kept(list_checkpoints(self.folder), newest):
            discard(path)

    def load(self) -> Progress:
        """Load the newest complete checkpoint into what the accelerator has prepared; without any, training is at its start.

        A broken one is passed over with a warning. Raises DataError if all are broken, where one holds more than
        numbers, and where another number of processes wrote it.
        """
        accelerator = self.accelerator
        found: list[Path | None] = [None]
        if accelerator.is_main_process:
            # Partial files of a process that ended while it wrote or removed checkpoints.
            for path in filter(is_partial, self.folder.glob(".*")):
                remove(path)
            found = [newest_complete(self.folder)]
        path = broadcast_object_list(found)[0]
        if path is None:
            return Progress()
        manifest = load_json(Manifest, path / MANIFEST)
        if manifest.processes != accelerator.num_processes:
            raise DataError(
                f"{path}: needed the {manifest.processes} process(es) that wrote this checkpoint, got "
                f"{accelerator.num_processes}; start as many"
            )
        try:
            # accelerate passes over a random state that it cannot read: training would go on, but differently.
            load(path / f"random_states_{accelerator.process_index}.pkl")
            accelerator.load_state(str(path))
        except UnpicklingError as error:
            raise DataError(f"{path}: needed tensors and numbers only, and nothing else is loaded: {error}") from error
        return manifest.progress


def list_checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints that have their final name, oldest first."""
    return sorted(folder.glob("step-*"))


def no_longer_kept(found: list[Path], newest: Path, *, kept: int = KEPT) -> list[Path]:
    """Return those of the checkpoints `found` that go when `newest` is there: all but the last `kept`, itself among them.

    Of one step, the validated checkpoint takes the other's place.
    """
    older = [path for path in found if path.name < newest.name]
    superseded = [path for path in older if newest.name.startswith(path.name)]
    earlier = [path for path in older if path not in superseded]
    return superseded + earlier[: max(0, len(earlier) - (kept - 1))]


def newest_complete(folder: Path) -> Path | None:
    """Return the newest complete checkpoint, with a warning for each one that is skipped; None if there is none.

    Raises DataError if all there are are broken.
    """
    found = list_checkpoints(folder)
    for path in reversed(found):
        fault = find_fault(path)
        if fault is None:
            return path
        warnings.warn(f"{path}: this checkpoint is damaged and skipped: {fault}", stacklevel=2)
    if found:
        raise DataError(f"{folder}: needed a complete checkpoint to resume, got {len(found)} damaged; start a new run")
    return None


def find_fault(checkpoint: Path) -> str | None:
    """Return the fault of a checkpoint's files, None if it is complete."""
    try:
        manifest = load_json(Manifest, checkpoint / MANIFEST)
    except DataError as error:
        return str(error)
    if manifest.format != FORMAT:
        return f"needed checkpoint format {FORMAT}, got {manifest.format}, which another version of diffrgen wrote"
    for name, digest in manifest.files.items():
        path = checkpoint / name
        if not path.is_file():
            return f"{name} is missing"
        if file_digest(path) != digest:
            return f"{name} has changed since it was written"
    return None


def _digests(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): file_digest(path) for path in sorted(folder.rglob("*")) if path.is_file()}

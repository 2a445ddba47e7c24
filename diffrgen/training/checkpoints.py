"""Checkpoints: what training needs to go on, written whole or not at all."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from accelerate import Accelerator

from diffrgen.pipeline.settings import load_json, save_json

KEPT = 2


@dataclass(frozen=True)
class Progress:
    """Where training stands: the next batch to take, the steps done, the best validation score and the time so far."""

    epoch: int = 0
    batch: int = 0
    step: int = 0
    best: float = -1.0
    seconds: float = 0.0


def save_checkpoint(accelerator: Accelerator, folder: Path, progress: Progress) -> Path:
    """Write model, optimiser, scaler, random state and `progress` to `folder/step-N`; keep the newest two.

    Everything goes to a temporary name first, so that an interruption leaves the earlier checkpoints whole.
    """
    final = folder / f"step-{progress.step:08d}"
    partial = folder / f".{final.name}.partial"
    accelerator.wait_for_everyone()
    accelerator.save_state(str(partial), safe_serialization=True)
    if accelerator.is_main_process:
        save_json(progress, partial / "progress.json")
        shutil.rmtree(final, ignore_errors=True)
        partial.rename(final)
        for old in list_checkpoints(folder)[:-KEPT]:
            shutil.rmtree(old)
    accelerator.wait_for_everyone()
    return final


def list_checkpoints(folder: Path) -> list[Path]:
    """Return the whole checkpoints in `folder`, oldest first."""
    return sorted(path for path in folder.glob("step-*") if (path / "progress.json").is_file())


def load_checkpoint(accelerator: Accelerator, folder: Path) -> Progress:
    """Load the newest checkpoint into what `accelerator` has prepared; without one, training is at its start."""
    found = list_checkpoints(folder)
    if not found:
        return Progress()
    accelerator.load_state(str(found[-1]))
    return load_json(Progress, found[-1] / "progress.json")

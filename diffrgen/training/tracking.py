"""Experiment trackers (Weights & Biases, MLflow, TensorBoard) in addition to the training log, through accelerate."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import Any, get_args

from accelerate import Accelerator
from accelerate.utils import is_mlflow_available, is_tensorboard_available, is_wandb_available

from diffrgen.errors import DataError
from diffrgen.training.options import TrackerName

PROJECT = "diffrgen"
FOLDER = "trackers"
Track = Callable[[Mapping[str, float], int], None]
"""Takes scalars by name and the step that they belong to."""

AVAILABLE: Mapping[TrackerName, Callable[[], bool]] = MappingProxyType(
    {"wandb": is_wandb_available, "mlflow": is_mlflow_available, "tensorboard": is_tensorboard_available}
)
# The argument that names a run within the project.
RUN_NAME: Mapping[TrackerName, str] = MappingProxyType({"wandb": "name", "mlflow": "run_name"})


def check_trackers(trackers: tuple[TrackerName, ...]) -> None:
    """Raise DataError for a tracker whose package is not installed: accelerate would leave it out without a word."""
    for name in trackers:
        if not AVAILABLE[name]():
            raise DataError(f'--track {name}: the package {name} is not installed; pip install "diffrgen[track]"')


@contextmanager
def tracking(accelerator: Accelerator, options: Any, run: Path) -> Iterator[Track]:
    """Start the accelerator's trackers with the options of a training, and end them; without trackers nothing happens.

    The project is `diffrgen`, the run has the name of its folder; files of trackers lie in `trackers/` of the run.
    """
    names = [str(getattr(tracker, "value", tracker)) for tracker in accelerator.log_with]
    if not names:
        yield lambda scalars, step: None
        return
    named = {name: {RUN_NAME[name]: run.name} for name in get_args(TrackerName) if name in names and name in RUN_NAME}
    accelerator.init_trackers(PROJECT, config=dict(_flat(asdict(options))), init_kwargs=named)
    try:
        yield lambda scalars, step: accelerator.log(dict(scalars), step=step)
    finally:
        accelerator.end_training()


def _flat(options: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str | int | float | bool]]:
    """Yield options by their dotted names; paths are reduced to their last part, because a machine's folders are private."""
    for name, value in options.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        elif isinstance(value, bool | int | float):
            yield f"{prefix}{name}", value
        else:
            is_path = isinstance(value, Path) or (isinstance(value, str) and Path(value).is_absolute())
            yield f"{prefix}{name}", Path(value).name if is_path else str(value)

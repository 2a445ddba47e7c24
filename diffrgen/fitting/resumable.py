"""A fit that steps over batches, and can be stopped after any of them and gone on with."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, Generic, TypeVar

from torch import nn
from tqdm import tqdm

from diffrgen.finite import StepGuard
from diffrgen.fitting.checkpoint import FitCheckpoint, FitStopped, random_state, set_random_state

Batch = TypeVar("Batch")


class ResumableFit(Generic[Batch]):
    """A module in training, its number of steps, and the loop; a subclass defines the batches and the step.

    steps: how many there are in all. parts: what has a state besides the model, such as the optimiser.
    """

    def __init__(self, model: nn.Module, steps: int, **parts: Any) -> None:
        self.steps, self.guard = steps, StepGuard(model)
        self.parts = {"model": model, **parts}
        self.losses: list[float] = []
        self.started = time.perf_counter()

    @property
    def step(self) -> int:
        """Steps taken."""
        return len(self.losses)

    @property
    def key(self) -> str:
        """Identifies the fit: a saved state of another recipe is rejected."""
        raise NotImplementedError

    def batches(self) -> Iterator[Batch]:
        """Yield the batches that are left, pass after pass."""
        raise NotImplementedError

    def take(self, batch: Batch) -> float:
        """Take one step, note its loss in `losses` and return it; one that is not finite is skipped."""
        raise NotImplementedError

    def run(self, description: str, *, progress: bool, checkpoint: FitCheckpoint | None) -> None:
        """Take the steps that are left, from where `checkpoint` stands; FitStopped if it requests a stop."""
        if checkpoint is not None:
            self.load(checkpoint.load(self.key))
        with tqdm(total=self.steps, initial=self.step, desc=description, unit="step", disable=not progress) as bar:
            for batch in self.batches():
                loss = self.take(batch)
                bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
                bar.update()
                if checkpoint is not None and (checkpoint.stop() or checkpoint.due()):
                    checkpoint.save(self.state())
                    if checkpoint.stop():
                        raise FitStopped(self.step, self.steps, checkpoint.what)

    def elapsed(self) -> float:
        """Return the seconds of the fit so far."""
        return time.perf_counter() - self.started

    def state(self) -> dict[str, Any]:
        """Return all that `load` needs to go on, tensors and numbers."""
        return {
            "key": self.key,
            **{name: part.state_dict() for name, part in self.parts.items()},
            "losses": self.losses,
            "skipped": self.guard.skipped,
            "seconds": self.elapsed(),
            "random": random_state(),
        }

    def load(self, state: dict[str, Any] | None) -> None:
        """Go on from what `state` returned; None: from the start."""
        if state is None:
            return
        for name, part in self.parts.items():
            part.load_state_dict(state[name])
        self.losses, self.guard.skipped = list(state["losses"]), state["skipped"]
        self.started = time.perf_counter() - state["seconds"]
        set_random_state(state["random"])

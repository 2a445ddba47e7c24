"""Steps with a non-finite loss or gradient: they change nothing, are counted, and several in a row stop the training."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from diffrgen.errors import DataError

MOST_IN_A_ROW = 5


class StepGuard:
    """Keeps a training finite: `keep` before a step, then `skip` where it came out as NaN or infinity, else `passed`.

    A skipped step leaves weights, optimiser and the statistics of batch normalisation as they were. With `MOST_IN_A_ROW`
    skipped steps one after the other the training has diverged.
    """

    def __init__(self, model: nn.Module, skipped: int = 0) -> None:
        self.skipped, self.in_a_row = skipped, 0
        self._now = [buffer for buffer in model.buffers() if buffer.numel()]
        self._kept = [buffer.clone() for buffer in self._now]

    @torch.no_grad()
    def keep(self) -> None:
        """Note the buffers as they are before a step: its forward passes may carry NaN into running means."""
        if self._now:
            torch._foreach_copy_(self._kept, self._now)

    def passed(self) -> None:
        """Note that a step was taken."""
        self.in_a_row = 0

    @torch.no_grad()
    def skip(self, step: int, *, loss: float, norm: float, cause: str) -> None:
        """Undo what `step` did to the buffers and count it; DataError with the `cause` after several in a row."""
        if self._now:
            torch._foreach_copy_(self._now, self._kept)
        self.skipped, self.in_a_row = self.skipped + 1, self.in_a_row + 1
        if self.in_a_row >= MOST_IN_A_ROW:
            raise DataError(
                f"step {step}: the loss or its gradient was not finite in {self.in_a_row} steps in a row (loss {loss:g}, "
                f"norm of the gradient {norm:g}), so training was stopped and nothing of these steps is kept. Likely "
                f"cause: {cause}"
            )


def all_finite(*values: float) -> bool:
    """Return whether no value is NaN or infinity."""
    return all(map(math.isfinite, values))


def first_not_finite(tensors: Iterable[tuple[str, Tensor]]) -> str | None:
    """Return the name of the first of (name, tensor) pairs that holds NaN or infinity; None if all are finite."""
    for name, tensor in tensors:
        if (tensor.is_floating_point() or tensor.is_complex()) and not torch.isfinite(tensor).all():
            return name
    return None

"""The tensors that a contender is timed on: one set on a CPU, on a GPU enough of them to leave its L2 cache."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from cases import Case, Direction
from torch import Tensor

Step = Callable[[], object]
MAX_SETS = 64


@dataclass(frozen=True)
class Inputs:
    """q, k, v, alpha as leaves that require gradients, and a gradient of the output."""

    leaves: list[Tensor]
    grad: Tensor

    @classmethod
    def draw(cls, case: Case, dtype: torch.dtype, device: str, seed: int = 0) -> Inputs:
        """Random tensors of a case."""
        shape = (case.batch, case.rows, case.heads, case.dim)
        grad = torch.randn(shape, generator=torch.Generator().manual_seed(seed + 1))
        return cls(case.inputs(dtype, device, seed), grad.to(device=device, dtype=dtype))

    @property
    def nbytes(self) -> int:
        """Bytes of all five."""
        return sum(x.nbytes for x in (*self.leaves, self.grad))

    def step(self, function: Callable[..., Tensor], direction: Direction) -> Step:
        """One call as it is timed: without gradients, or with those of all four inputs."""
        plain = [x.detach() for x in self.leaves]
        if direction == "forward":
            return lambda: function(*plain)
        return lambda: torch.autograd.grad(function(*self.leaves), self.leaves, self.grad)


def input_sets(case: Case, dtype: torch.dtype, device: str) -> list[Inputs]:
    """Sets to be used in turn: on a GPU together twice its L2 cache or more."""
    first = Inputs.draw(case, dtype, device)
    if device == "cpu":
        return [first]
    cache = torch.cuda.get_device_properties(device).L2_cache_size
    count = min(MAX_SETS, 1 + 2 * cache // first.nbytes)
    return [first, *(Inputs.draw(case, dtype, device, seed=10 * i) for i in range(1, count))]

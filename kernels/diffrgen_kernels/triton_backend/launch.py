"""What is handed to Triton: strided tensors as views, and a launch as data: to be run, timed or only compiled."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor


class View(NamedTuple):
    """A tensor as the kernels see it: its data and its strides in elements. Axes it lacks have stride 0."""

    data: Any
    batch: int = 0
    row: int = 0
    mask: int = 0
    head: int = 0
    dim: int = 0


def projection_view(x: Tensor) -> View:
    """q, k, v or a gradient of theirs: (B, N or M, P, H, D); where the masks share it, their stride is 0."""
    batch, row, mask, head, dim = x.stride()
    return View(x, batch, row, mask if x.shape[2] > 1 else 0, head, dim)


def output_view(x: Tensor) -> View:
    """out or its gradient: (B, N, H, D)."""
    batch, row, head, dim = x.stride()
    return View(x, batch, row, 0, head, dim)


def empty_results(q: Tensor, alpha: Tensor, *, needs_grad: bool) -> tuple[Tensor, Tensor]:
    """Memory of forward's results: out (B, N, H, D), and lse (B, N, P, H) if `needs_grad`, else (0,)."""
    batch, rows, _, heads, dim = q.shape
    lse = alpha.new_empty((batch, rows, alpha.shape[1], heads) if needs_grad else 0)
    return q.new_empty(batch, rows, heads, dim), lse


@dataclass(frozen=True)
class Launch:
    """One kernel launch.

    arguments: run-time arguments by name. constants: tl.constexpr arguments by name. Tensors may be on the meta device:
    such a launch can be compiled and not run.
    """

    kernel: Any
    programs: int
    arguments: dict[str, Any]
    constants: dict[str, Any]
    warps: int
    stages: int

    @property
    def options(self) -> dict[str, Any]:
        """What Triton's compiler is told."""
        return {"num_warps": self.warps, "num_stages": self.stages, "enable_fp_fusion": True}

    def run(self) -> None:
        """Put it on the current stream; inside `recorded`, only note it."""
        launches = _recorded.get()
        if launches is None:
            self.kernel[(self.programs,)](**self.arguments, **self.constants, **self.options)
        else:
            launches.append(self)


_recorded: ContextVar[list[Launch] | None] = ContextVar("_recorded", default=None)


@contextmanager
def recorded() -> Iterator[list[Launch]]:
    """Collect the launches of a block in their order and run none, so that they can be compiled or timed."""
    launches: list[Launch] = []
    token = _recorded.set(launches)
    try:
        yield launches
    finally:
        _recorded.reset(token)

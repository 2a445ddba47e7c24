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


class Centres(NamedTuple):
    """Rows in the order of the grid rows of their centres, int32.

    rows, patches: (B, N), the rows and their centres. starts: (B, gh + 1), where the rows of each grid row begin.
    """

    rows: Any
    patches: Any
    starts: Any


class Inputs(NamedTuple):
    """The tensors of a call; a kernel looks at those that its call has.

    q, k, v, alpha: views. key_mask: (B, M) bytes. v_sum: a view of v_sum, (B, P or 1,
    H, D) float32. outside: (B, P, gh gw) int32, the keys outside the window round each patch, where key_mask makes them
    differ.
    """

    q: View
    k: View
    v: View
    alpha: View
    centres: Centres
    key_mask: Any
    v_sum: View
    outside: Any


class Shape(NamedTuple):
    """Sizes of a call, and the factor of the logits, without and with log2(e)."""

    B: int
    N: int
    M: int
    P: int
    H: int
    gh: int
    logit_scale: float
    scale: float


def projection_view(x: Tensor) -> View:
    """q, k, v or a gradient of theirs: (B, N or M, P, H, D); where the masks share it, their stride is 0."""
    batch, row, mask, head, dim = x.stride()
    return View(x, batch, row, mask if x.shape[2] > 1 else 0, head, dim)


def output_view(x: Tensor) -> View:
    """out or its gradient: (B, N, H, D)."""
    batch, row, head, dim = x.stride()
    return View(x, batch, row, 0, head, dim)


def alpha_view(x: Tensor) -> View:
    """alpha or its gradient: (B, P), or (B, N, P)."""
    return View(x, batch=x.stride(0), row=x.stride(1) if x.dim() == 3 else 0, mask=x.stride(-1))


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
        """The options of Triton's compiler."""
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

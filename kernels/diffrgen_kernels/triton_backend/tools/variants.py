"""The variants of the kernels: every launch of representative calls, to be compiled without a GPU."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from ... import triton_backend
from ...contract import Masking, MaskSpec
from ..configs import compiling_for
from ..launch import Launch, recorded
from .compile import Compiled, compile_launch

Projections = Literal["own", "shared"]
Pass = Literal["inference", "forward", "backward"]

DTYPES = (torch.bfloat16, torch.float16, torch.float32)
DIMS = (16, 40, 64, 96, 128, 256)
GRIDS = {"small": (7, 7), "large": (32, 32)}  # patches of a 224 and of a 1024 pixel image


@dataclass(frozen=True)
class Problem:
    """A call of the operator with as many rows as patches; defaults are those of training at batch 16.

    projections: "own" for each mask or "shared". general: two views, centres, absent keys, weights of each row, and a rectangle.
    """

    dtype: torch.dtype = torch.bfloat16
    dim: int = 64
    projections: Projections = "own"
    masking: Masking = "multiplicative"
    grid: tuple[int, int] = GRIDS["large"]
    batch: int = 16
    heads: int = 8
    orders: tuple[int, ...] = (0, 1, 2, 3)
    general: bool = False

    def inputs(self, device: str) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None, Tensor | None, MaskSpec]:
        """q, k, v, alpha, centres, key_mask and the spec of the call."""
        patches, exclusive = self.grid[0] * self.grid[1], self.masking == "exclusive"
        masks = 1 if self.projections == "shared" else len(self.orders)
        keys = 2 * patches if self.general else patches
        q, k, v = (
            torch.randn(self.batch, rows, masks, self.heads, self.dim, dtype=self.dtype, device=device)
            for rows in (patches, keys, keys)
        )
        alpha = torch.full((self.batch, len(self.orders)), 1 / len(self.orders), device=device)
        spec = MaskSpec(self.grid, self.orders, exclusive, self.dim**-0.5)
        if not self.general:
            return q, k, v, alpha, None, None, spec
        centres = torch.arange(patches, device=device).flip(0)[None]
        key_mask = (torch.arange(keys, device=device) % 3 > 0).expand(self.batch, keys)
        spec = MaskSpec(self.grid, (*self.orders[:-1], (1, 4)), exclusive, self.dim**-0.5)
        return q, k, v, alpha[:, None].repeat(1, patches, 1), centres, key_mask, spec


@dataclass(frozen=True)
class Variant:
    """One launch of a problem; `index` counts the launches of `all_launches`."""

    problem: Problem
    index: int
    direction: Pass
    launch: Launch

    @property
    def kernel(self) -> str:
        """Its name."""
        name: str = self.launch.kernel.fn.__name__
        return name


def all_launches(problem: Problem, device: str) -> list[tuple[Pass, Launch]]:
    """Every launch of one call without gradients and of one with them, in their order; none is run.

    It is the backend itself that is asked, so that what is listed is what would run. The device may be "meta".
    """
    *inputs, spec = problem.inputs(device)
    with recorded() as inference:
        triton_backend.forward(*inputs, spec, needs_lse=False)
    with recorded() as forward:
        out, lse = triton_backend.forward(*inputs, spec, needs_lse=True)
    with recorded() as backward:
        triton_backend.backward(torch.empty_like(out), *inputs, lse, spec)
    passes: dict[Pass, list[Launch]] = {"inference": inference, "forward": forward, "backward": backward}
    return [(direction, launch) for direction, launches in passes.items() for launch in launches]


def variants_of(problem: Problem, arch: int) -> list[Variant]:
    """The launches of a problem on sm_{arch}, without tensors behind them."""
    with compiling_for(arch):
        found = all_launches(problem, "meta")
    return [Variant(problem, index, direction, launch) for index, (direction, launch) in enumerate(found)]


def problems(dtypes: Iterable[torch.dtype] = DTYPES, dims: Iterable[int] = DIMS) -> list[Problem]:
    """Every combination of dtype, head dimension, projections, masking and size."""
    return [
        Problem(dtype, dim, projections, masking, grid)
        for dtype in dtypes
        for dim in dims
        for projections in ("own", "shared")
        for masking in ("multiplicative", "exclusive")
        for grid in GRIDS.values()
    ]


def processes(jobs: int) -> ProcessPoolExecutor:
    """Processes to compile in; they begin afresh, so that they need no GPU and use no tuned configuration."""
    return ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"))


def compile_variants(pool: ProcessPoolExecutor, variants: list[Variant], arch: int) -> Iterator[Compiled | Exception]:
    """For each variant what it needs on sm_{arch}, or why it does not compile."""
    return pool.map(partial(_compile, arch), [(variant.problem, variant.index) for variant in variants])


def _compile(arch: int, key: tuple[Problem, int]) -> Compiled | Exception:
    """In a process of its own, where the launch is made anew: kernels cannot be sent to another process."""
    problem, index = key
    try:
        return compile_launch(variants_of(problem, arch)[index].launch, arch)
    # whatever Triton's compiler raises is the result for this variant; its parts cannot all be sent to another process
    except Exception as error:
        return RuntimeError(f"{type(error).__name__}: {error}")

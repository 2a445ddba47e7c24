"""The benchmark's cases, those of `tests/support/kernel_cases.py`, and the arithmetic and the bytes that one stands for."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT / "tests" / "support") not in sys.path:  # a script finds the parity table's cases as pytest does
    sys.path.append(str(ROOT / "tests" / "support"))

from kernel_cases import BENCH_CASES, Case  # noqa: E402

Direction = Literal["forward", "forward_backward"]
DIRECTIONS: tuple[Direction, ...] = ("forward", "forward_backward")
DTYPES = {"cpu": torch.float32, "cuda": torch.bfloat16}
QUICK_CASES = [
    Case("quick_6x12", rows=6, orders=(0, 1), grid=(3, 4)),
    Case("quick_20x20", rows=20, orders=(0, 1), grid=(4, 5)),
]


def select_cases(device: str, words: list[str] | None, *, quick: bool) -> list[Case]:
    """The cases of a device whose names hold one of `words`; ValueError where none does."""
    cases = QUICK_CASES if quick else BENCH_CASES[device]
    found = [case for case in cases if not words or any(word in case.name for word in words)]
    if not found:
        raise ValueError(
            f"cases: expected parts of {', '.join(case.name for case in cases)}, got {', '.join(words or [])}"
        )
    return found


@dataclass(frozen=True)
class Work:
    """The work of a case in one direction.

    flops: the products of Eq. 5 over all patches, 2 forward and 5 backward, counted dense as PyTorch counts a causal
    attention; a kernel that leaves out what lies outside the windows does fewer. moved: the bytes that must be read and
    written if every tensor is touched once in each pass.
    """

    flops: int
    moved: int


def work(case: Case, direction: Direction, dtype: torch.dtype) -> Work:
    """Count the work of one call."""
    patches, masks = case.grid[0] * case.grid[1], len(case.orders)
    product = 2 * case.batch * masks * case.heads * case.rows * patches * case.dim
    sets = 1 if case.shared else masks
    vectors = case.batch * sets * (case.rows + 2 * patches)
    inputs = vectors * case.heads * case.dim * dtype.itemsize + 4 * case.batch * masks
    output = case.batch * case.rows * case.heads * case.dim * dtype.itemsize
    if direction == "forward":
        return Work(2 * product, inputs + output)
    # out is written and its gradient read; the inputs are read in both passes, their gradients written in the second
    return Work((2 + 5) * product, 3 * inputs + 2 * output)

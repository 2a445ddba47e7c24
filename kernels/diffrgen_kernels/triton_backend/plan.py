"""The arguments that the kernels share."""

from __future__ import annotations

from typing import Any

import triton
from torch import Tensor

from diffrgen_kernels.contract import MaskSpec
from diffrgen_kernels.triton_backend.tiles import split_dim

LOG2E = 1.4426950408889634  # exponentials are powers of two


def sizes(q: Tensor, k: Tensor, alpha: Tensor, spec: MaskSpec) -> dict[str, int | float]:
    """Sizes, grid and the factor of the logits in units of log 2."""
    return {
        "N": q.shape[1],
        "M": k.shape[1],
        "P": alpha.shape[1],
        "H": q.shape[3],
        "gh": spec.grid[0],
        "gw": spec.grid[1],
        "scale": spec.scale * LOG2E,
    }


def constants(dim: int, spec: MaskSpec) -> dict[str, Any]:
    """Masks whose window is the whole grid, the others, all orders, and the widths of the tiles of D elements."""
    whole = [order == 0 or order >= max(spec.grid) - 1 for order in spec.orders]
    widths = split_dim(dim)
    return {
        "FULL_MASKS": tuple(j for j, full in enumerate(whole) if full),
        "WINDOW_MASKS": tuple(j for j, full in enumerate(whole) if not full),
        "ORDERS": spec.orders,
        "EXCLUSIVE": spec.exclusive,
        "D": dim,
        "D0": widths[0],
        "D1": widths[1],
    }


def shared_constants(dim: int, spec: MaskSpec) -> dict[str, Any]:
    """For shared projections, where masks with the same window are one.

    REACHES: orders of the distinct windows, widest first. WINDOW_OF: the window of each mask. WHOLE: 1 if the first window is
    the whole grid, else 0. FLOORED: whether a masked logit 0 takes weight.
    """
    whole = max(spec.grid)  # more than the order of any window that leaves a key out
    reach = [whole if order == 0 or order >= whole - 1 else order for order in spec.orders]
    reaches = sorted(set(reach), reverse=True)
    widths = split_dim(dim)
    return {
        "REACHES": tuple(reaches),
        "WINDOW_OF": tuple(reaches.index(order) for order in reach),
        "WHOLE": int(reaches[0] == whole),
        "FLOORED": not spec.exclusive and reaches[-1] < whole,
        "D": dim,
        "D0": widths[0],
        "D1": widths[1],
    }


def mask_kinds(dim: int, spec: MaskSpec) -> list[dict[str, Any]]:
    """The constants of a kernel whose programs do one mask each: for the full MASKS, and for the others, if there are any."""
    fixed = constants(dim, spec)
    full, windowed = fixed.pop("FULL_MASKS"), fixed.pop("WINDOW_MASKS")
    return [{**fixed, "MASKS": masks, "FULL": masks is full} for masks in (full, windowed) if masks]


def row_blocks(rows: int, patches: int, block: int) -> int:
    """Blocks of rows of one study and head: each lies in one cycle of M rows."""
    return triton.cdiv(rows, patches) * triton.cdiv(min(rows, patches), block)

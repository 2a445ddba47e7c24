"""The co-attention masks A^s of Eq. 6."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

# s >= 0: a window of (2s+1) x (2s+1) patches, 0: all ones; (height, width): (2 height + 1) x (2 width + 1) patches
Order = int | tuple[int, int]


def half_sizes(order: Order, grid: Sequence[int]) -> tuple[int, int]:
    """Patches above (and below) and left (and right) of a window's centre; all ones reach from border to border.

    >>> half_sizes(2, (7, 7)), half_sizes((0, 3), (7, 7)), half_sizes(0, (7, 5))
    ((2, 2), (0, 3), (6, 4))
    """
    if isinstance(order, tuple):
        return order
    return (order, order) if order > 0 else (grid[0] - 1, grid[1] - 1)


def window_masks(
    grid: Sequence[int],
    orders: Sequence[Order],
    rows: int,
    *,
    centres: Tensor | None = None,
    views: int = 1,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
) -> Tensor:
    """The masks A^s, one for each order s, with their window vectors stacked cyclically to `rows` rows (Eq. 6).

        A[j, i, l] = 1 if orders[j] == 0 or patch l mod m lies in the window round patch c_i, else 0

    Args:
        grid: (gh, gw), patches down and across; m = gh * gw, numbered row by row.
        orders: window of each mask: s > 0 is (2s+1) x (2s+1) patches, 0 means all ones, and a pair (height, width) is
            (2 height + 1) x (2 width + 1) patches.
        rows: number of query rows n >= 1.
        centres: (B or 1, rows) integers, the patch c_i round which row i's window lies; None means i mod m. A number
            outside of the grid counts as the nearest one of the grid.
        views: grids of keys that follow each other.
        dtype: dtype of the ones and zeros.
        device: where the masks are made.

    Returns:
        (P, rows, views * m) masks, with `centres` (P, B or 1, rows, views * m); a window is clipped where it leaves the
        grid.

    >>> window_masks((2, 3), (0, 1), 2).int().tolist()
    [[[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1]], [[1, 1, 0, 1, 1, 0], [1, 1, 1, 1, 1, 1]]]
    """
    height, width = grid
    patch = torch.arange(views * height * width, device=device) % (height * width)  # (views * m,)
    row = torch.arange(rows, device=device) if centres is None else centres.clamp(0, height * width - 1)
    row = row % (height * width)  # (rows,) or (B or 1, rows)
    down = (row // width)[..., None] - patch // width  # (..., rows, views * m)
    across = (row % width)[..., None] - patch % width  # (..., rows, views * m)
    masks = []
    for order in orders:
        high, wide = half_sizes(order, grid)
        masks.append((down.abs() <= high) & (across.abs() <= wide))
    return torch.stack(masks).to(dtype)  # (P, ..., rows, views * m)

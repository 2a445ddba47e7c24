"""The co-attention masks A^s of Eq. 6."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def window_masks(
    grid: Sequence[int],
    orders: Sequence[int],
    rows: int,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
) -> Tensor:
    """The masks A^s, one for each order s, with their window vectors stacked cyclically to `rows` rows (Eq. 6).

        A[j, i, l] = 1 if orders[j] == 0 or patch l lies in the (2s+1) x (2s+1) window round patch i mod m, else 0

    Args:
        grid: (gh, gw), patches down and across; m = gh * gw, numbered row by row.
        orders: window order s >= 0 of each mask; 0 means all ones.
        rows: number of query rows n >= 1; row i belongs to patch i mod m.
        dtype: dtype of the ones and zeros.
        device: where the masks are made.

    Returns:
        (P, rows, m) masks; a window is clipped where it leaves the grid.

    >>> window_masks((2, 3), (0, 1), 2).int().tolist()
    [[[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1]], [[1, 1, 0, 1, 1, 0], [1, 1, 1, 1, 1, 1]]]
    """
    height, width = grid
    patch = torch.arange(height * width, device=device)  # (m,)
    row = torch.arange(rows, device=device) % (height * width)  # (rows,)
    down = (row // width)[:, None] - (patch // width)[None, :]  # (rows, m)
    across = (row % width)[:, None] - (patch % width)[None, :]  # (rows, m)
    distance = torch.maximum(down.abs(), across.abs())  # (rows, m)
    masks = [torch.ones_like(distance) if s == 0 else (distance <= s).long() for s in orders]
    return torch.stack(masks).to(dtype)  # (P, rows, m)

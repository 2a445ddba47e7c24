"""Small shapes (the paper's own: 21 x 49 and 49 x 49): one program computes a whole study and head, all masks in turn.

There the number of launches and their latency are everything, so Eq. 5 is computed as it stands, with every logit of
every mask; nothing but the result is written. This file holds what forward and backward share.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from diffrgen_kernels.contract import MaskSpec
from diffrgen_kernels.triton_backend.configs import config_for
from diffrgen_kernels.triton_backend.geometry import patch_distance
from diffrgen_kernels.triton_backend.launch import Launch, View, projection_view
from diffrgen_kernels.triton_backend.plan import LOG2E
from diffrgen_kernels.triton_backend.tiles import split_dim, store_rows

MAX_KEYS = 64


def fits(q: Tensor, k: Tensor) -> bool:
    """Whether q (B, N, P, H, D) and k (B, M, P, H, D) are small: one program's registers hold a mask's work.

    Products of float32 run without tensor cores, on operands in registers, so that fewer of its shapes are small.
    """
    wide, dim = q.dtype == torch.float32, q.shape[4]
    max_rows = 64 if wide or dim > 64 else 128
    return q.shape[1] <= max_rows and k.shape[1] <= MAX_KEYS and dim <= (32 if wide else 128)


def small_launch(
    name: str,
    kernels: tuple[Any, Any],
    q: Tensor,
    k: Tensor,
    v: Tensor,
    alpha: Tensor,
    spec: MaskSpec,
    others: dict[str, Any],
    constants: dict[str, Any],
) -> Launch:
    """The launch of one of `kernels`, for own and for shared projections, with its other arguments and constants."""
    dim, own = q.shape[4], q.shape[2] > 1
    config = config_for(name, q.dtype, dim)
    widths = split_dim(dim)
    rows = max(config.rows, triton.next_power_of_2(q.shape[1]))
    return Launch(
        kernels[0] if own else kernels[1],
        q.shape[0] * q.shape[3],
        {
            "q": projection_view(q),
            "k": projection_view(k),
            "v": projection_view(v),
            "alpha": View(alpha, batch=alpha.stride(0), mask=alpha.stride(1)),
            "N": q.shape[1],
            "P": alpha.shape[1],
            "H": q.shape[3],
            "scale": spec.scale * LOG2E,
            **others,
        },
        {
            # constants, so that no thread divides by a variable
            "M": k.shape[1],
            "GW": spec.grid[1],
            # order 0, the whole grid, becomes one that reaches everywhere
            "ORDERS": tuple(order or max(spec.grid) for order in spec.orders),
            "EXCLUSIVE": spec.exclusive,
            "D": dim,
            "D0": widths[0],
            "D1": widths[1],
            "ROWS": rows,
            "KEYS": max(config.keys, triton.next_power_of_2(k.shape[1])),
            **constants,
            **({"STAGES": config.stages} if own else {}),
        },
        max(config.warps, 8 if rows > 64 else 1),
        config.stages,
    )


@triton.jit
def small_block(N, M: tl.constexpr, GW: tl.constexpr, ROWS: tl.constexpr, KEYS: tl.constexpr):
    """Rows and keys, which of them exist, and the order of the smallest window that holds each pair, (ROWS, KEYS)."""
    rows, keys = tl.arange(0, ROWS), tl.arange(0, KEYS)
    # a key that does not exist lies in every window, where its logit is -inf
    distance = tl.where((keys < M)[None, :], patch_distance((rows % M)[:, None], keys[None, :], GW), 0)
    return rows, keys, rows < N, keys < M, distance


@triton.jit
def masked_softmax(s, inside, EXCLUSIVE: tl.constexpr):
    """Numerators 2^(s - M0) of the softmax over the masked logits, their sum, and M0 of each row."""
    s = tl.where(inside, s, float("-inf") if EXCLUSIVE else 0.0)
    top = tl.max(s, 1)
    weights = tl.exp2(s - top[:, None])
    return weights, tl.sum(weights, 1), top


@triton.jit
def store_product(x, start, rows, valid, weights, y0, y1, factor, D: tl.constexpr, D0: tl.constexpr, D1: tl.constexpr):
    """Store factor * weights y, a tile at a time."""
    store_rows(x, start, rows, valid, tl.dot(weights, y0, input_precision="ieee") * factor, D, 0, D0)
    if D1 > 0:
        store_rows(x, start, rows, valid, tl.dot(weights, y1, input_precision="ieee") * factor, D, D0, D1)

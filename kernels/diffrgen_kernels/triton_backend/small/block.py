"""What forward and backward of small shapes share."""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl

from ..geometry import patch_distance
from ..launch import Launch
from ..plan import Call, common_arguments
from ..tiles import split_dim, store_tile


def small_launch(
    name: str, kernels: tuple[Any, Any], call: Call, arguments: dict[str, Any], constants: dict[str, Any]
) -> None:
    """Launch one of `kernels`, for own and for shared projections, with its other arguments and constants."""
    config = call.config(name)
    own = call.q.shape[2] > 1
    rows = max(config.rows, triton.next_power_of_2(call.q.shape[1]))
    Launch(
        kernels[0] if own else kernels[1],
        call.q.shape[0] * call.q.shape[3],
        {**common_arguments(call, sums=False), **arguments},
        {
            # a constant, so that no thread divides by a variable
            "M": call.k.shape[1],
            "GW": call.spec.grid[1],
            # all ones is the window of an order that reaches everywhere
            "ORDERS": tuple(
                max(call.spec.grid) if j in call.full else call.spec.windows[j][0] for j in range(call.masks)
            ),
            "EXCLUSIVE": call.spec.exclusive,
            "D": call.dim,
            "TILES": split_dim(call.dim),
            "ROWS": rows,
            "KEYS": max(config.keys, triton.next_power_of_2(call.k.shape[1])),
            **constants,
            **({"STAGES": config.stages} if own else {}),
        },
        max(config.warps, 8 if rows > 64 else 1),
        config.stages,
    ).run()


@triton.jit
def small_block(N, M: tl.constexpr, GW: tl.constexpr, ROWS: tl.constexpr, KEYS: tl.constexpr):
    """Rows and keys, which of them exist, and the order of the smallest window that holds each pair, (ROWS, KEYS)."""
    rows, keys = tl.arange(0, ROWS), tl.arange(0, KEYS)
    # a key that does not exist lies in every window, where its logit is -inf
    distance = tl.where((keys < M)[None, :], patch_distance((rows % M)[:, None], keys[None, :], GW), 0)
    return rows, keys, rows < N, keys < M, distance


@triton.jit
def load_weight(alpha, b, j):
    """alpha of a mask."""
    return tl.load(alpha.data + b.to(tl.int64) * alpha.batch + j * alpha.mask)


@triton.jit
def masked_softmax(s, inside, EXCLUSIVE: tl.constexpr):
    """Numerators 2^(s - M0) of the softmax over the masked logits, their sum, and M0 of each row."""
    s = tl.where(inside, s, float("-inf") if EXCLUSIVE else 0.0)
    top = tl.max(s, 1)
    weights = tl.exp2(s - top[:, None])
    return weights, tl.sum(weights, 1), top


@triton.jit
def store_product(x, start, rows, exist, weights, y, D: tl.constexpr, TILES: tl.constexpr):
    """Store weights y, a tile at a time."""
    for t in tl.static_range(len(TILES)):
        product = tl.dot(weights, y[t], input_precision="ieee")
        store_tile(x, start, rows, exist, product, D, t * TILES[0], TILES[t])

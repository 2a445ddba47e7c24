"""What a block of keys gathers of the rows in backward."""

from __future__ import annotations

from typing import Any, NamedTuple

import triton
import triton.language as tl

from .tiles import load_vector, offset, store_tile


class KeySums(NamedTuple):
    """dk / scale and dv of a block of keys, tiles."""

    dk: Any
    dv: Any


@triton.jit
def store_keys(
    dk, dv, sums, rest, b, h, j, keys, exist, there, logit_scale,
    FLOORED: tl.constexpr, KEY_MASK: tl.constexpr, D: tl.constexpr, TILES: tl.constexpr,
):  # fmt: skip
    """Store dk and dv, 0 for keys that are not `there`; rest: what every key gets of dv besides, D elements."""
    dk_start, dv_start = offset(dk, b, j, h), offset(dv, b, j, h)
    for t in tl.static_range(len(TILES)):
        key, value = sums.dk[t] * logit_scale, sums.dv[t]
        if FLOORED:
            value += load_vector(rest, t * TILES[0], TILES[t], D)[None, :]
        if KEY_MASK:
            key, value = tl.where(there[:, None], key, 0.0), tl.where(there[:, None], value, 0.0)
        store_tile(dk, dk_start, keys, exist, key, D, t * TILES[0], TILES[t])
        store_tile(dv, dv_start, keys, exist, value, D, t * TILES[0], TILES[t])

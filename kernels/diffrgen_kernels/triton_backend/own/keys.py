"""Gradients of Eq. 5 on the key side: dk and dv of one mask for one block of keys, for own projections per mask.

With W, s, lse, u and Z as in queries.py, and over the rows whose window W holds a key:

    p' = alpha / Z e^(s - lse) ;   dk = scale sum p' (g . v - delta) q ;   dv = sum ( p' - alpha u / Z ) g + sum_all alpha u / Z g

The rows that can hold a key are by symmetry those whose centres its own window holds: once in every cycle of gh gw rows, or
with `centres` one run in the order of the grid rows of the centres.
"""

from __future__ import annotations

import triton
import triton.language as tl

from ..geometry import (
    Keys,
    element_of,
    present,
    rows_by_centre,
    window_mask,
    window_of,
    window_run,
)
from ..key_sums import KeySums, store_keys
from ..moments import weigh
from ..tiles import (
    add_product,
    dot_tiles,
    load_tiles,
    offset,
    zero_tiles,
)


@triton.jit
def _visit_rows(
    sums, k, v, keys, grad, inputs, q_start, grad_start, terms, row_start, rows, centres, exist, window, scale,
    FULL: tl.constexpr, WIDE: tl.constexpr, SQUARE: tl.constexpr, EXCLUSIVE: tl.constexpr, GW: tl.constexpr,
    D: tl.constexpr, TILES: tl.constexpr,
):  # fmt: skip
    """Add a tile of rows to the sums of every key; a row that does not exist has p' = 0."""
    q = load_tiles(inputs.q, q_start, rows, exist, D, TILES)
    s = dot_tiles(k, q, TILES)  # (KEYS, ROWS)
    g = load_tiles(grad, grad_start, rows, exist, D, TILES)
    t = dot_tiles(v, g, TILES)
    at = row_start + rows
    inside = exist[None, :]
    if not FULL:
        inside = window_mask(keys.patch, centres, exist, window, GW, SQUARE)
    if WIDE:
        # not to be fused, as in `logits`
        p, slope = weigh(tl.where(inside, s * scale, float("-inf")), t, terms, at, exist)
    else:
        lse = tl.load(terms.lse + at, mask=exist, other=float("inf"))
        factor = tl.load(terms.factor + at, mask=exist, other=0.0)
        delta = tl.load(terms.delta + at, mask=exist, other=0.0)
        p = tl.exp2(tl.fma(s, scale, -lse[None, :])) * factor[None, :]
        if not FULL:
            p = tl.where(inside, p, 0.0)
        slope = p * (t - delta[None, :])
    if not FULL and not EXCLUSIVE:
        masked = tl.load(terms.masked + at, mask=exist, other=0.0)
        p -= tl.where(inside, masked[None, :], 0.0)
    return KeySums(add_product(sums.dk, slope, q, TILES), add_product(sums.dv, p, g, TILES))


@triton.jit
def _keys_of_block(block, shape, GW: tl.constexpr, KEYS: tl.constexpr, ONE_VIEW: tl.constexpr):
    """A block of keys, and its first patch. With ONE_VIEW all keys are of one view."""
    patches = shape.M
    if ONE_VIEW:
        patches = shape.gh * GW
    blocks = tl.cdiv(patches, KEYS)
    first = block % blocks * KEYS
    patch = first + tl.arange(0, KEYS)
    index = patch
    if ONE_VIEW:
        index = block // blocks * patches + patch
    return Keys(index, patch, patch < patches), first


@triton.jit
def _key_blocks(shape, GW: tl.constexpr, KEYS: tl.constexpr, ONE_VIEW: tl.constexpr):
    blocks = tl.cdiv(shape.M, KEYS)
    if ONE_VIEW:
        patches = shape.gh * GW
        blocks = shape.M // patches * tl.cdiv(patches, KEYS)
    return blocks


@triton.jit
def backward_keys_kernel(
    grad, inputs, terms, rest, dk, dv, shape,
    MASKS: tl.constexpr, FULL: tl.constexpr, HEIGHTS: tl.constexpr, WIDTHS: tl.constexpr,
    SQUARE: tl.constexpr, EXCLUSIVE: tl.constexpr, VIEWS: tl.constexpr, CENTRES: tl.constexpr, KEY_MASK: tl.constexpr,
    ROW_ALPHA: tl.constexpr, WIDE: tl.constexpr, GW: tl.constexpr, D: tl.constexpr, TILES: tl.constexpr,
    ROWS: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    """Program: one block of keys of one study and head, for one of MASKS, which are all full or none. alpha = 0 costs nothing."""
    blocks = _key_blocks(shape, GW, KEYS, VIEWS and not FULL)
    block, task = tl.program_id(0) % blocks, tl.program_id(0) // blocks
    h, b = task % shape.H, task // shape.H // len(MASKS)
    j = element_of(MASKS, task // shape.H % len(MASKS))
    keys, first = _keys_of_block(block, shape, GW, KEYS, VIEWS and not FULL)
    there = keys.exist
    if KEY_MASK:
        there = present(inputs.key_mask, b, keys.key, keys.exist, shape)
    k = load_tiles(inputs.k, offset(inputs.k, b, j, h), keys.key, there, D, TILES)
    v = load_tiles(inputs.v, offset(inputs.v, b, j, h), keys.key, there, D, TILES)
    q_start, grad_start = offset(inputs.q, b, j, h), offset(grad, b, 0, h)
    row_start = ((b * shape.P + j) * shape.H + h).to(tl.int64) * shape.N
    window = window_of(HEIGHTS, WIDTHS, j)
    begin, end, cycles, cycle = 0, shape.N, 1, shape.N
    if not FULL:
        top, bottom = first // GW, tl.minimum(first + KEYS - 1, shape.gh * GW - 1) // GW
        begin, end = window_run(top, bottom, window.height, shape, GW)
        if CENTRES:
            starts = inputs.centres.starts + b * (shape.gh + 1)
            begin, end = tl.load(starts + begin // GW), tl.load(starts + end // GW)
        else:
            cycle = shape.gh * GW
            end, cycles = tl.minimum(end, shape.N), tl.cdiv(shape.N, cycle)
    tiles = tl.maximum(tl.cdiv(end - begin, ROWS), 1)
    if not ROW_ALPHA:
        alpha = tl.load(inputs.alpha.data + b * inputs.alpha.batch + j * inputs.alpha.mask)
        cycles = tl.where(alpha != 0, cycles, 0)
    sums = KeySums(zero_tiles(KEYS, TILES), zero_tiles(KEYS, TILES))
    for tile in range(cycles * tiles):
        centres = begin + tile % tiles * ROWS + tl.arange(0, ROWS)
        rows = tile // tiles * cycle + centres
        exist = (centres < end) & (rows < shape.N)
        if CENTRES and not FULL:
            rows, centres = rows_by_centre(inputs.centres, b, centres, exist, shape)
        sums = _visit_rows(
            sums, k, v, keys, grad, inputs, q_start, grad_start, terms, row_start, rows, centres, exist, window,
            shape.scale, FULL, WIDE, SQUARE, EXCLUSIVE, GW, D, TILES,
        )  # fmt: skip
    store_keys(
        dk, dv, sums, rest + task.to(tl.int64) * D, b, h, j, keys.key, keys.exist, there, shape.logit_scale,
        not FULL and not EXCLUSIVE, KEY_MASK, D, TILES,
    )  # fmt: skip

"""Gradients of Eq. 5 on the query side: dq, what the key side needs of every row, and shares of dalpha.

With W, n, s and lse as in forward.py, p = e^(s - lse), u = e^-lse where n > 0 (u = 0 with exclusive masks), t = g . v:

    Z = sum_W p + n u ;   delta = ( sum_W (p - u) t + u g . v_sum ) / Z ;   dalpha_j = sum of delta over heads and rows
    dq = alpha scale ( sum_W p t k - delta sum_W p k ) / Z

Z is 1 but for the rounding of lse, which counts where logits are large. delta is known only after the last key, so both
sums are kept; t is taken relative to its running mean over the keys so far, which leaves little to cancel when the terms are
rounded to 16 bits, and with float32 to its value at the largest p, which leaves nothing of a row with one dominant key.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import triton
import triton.language as tl

from ..geometry import (
    element_of,
    keys_of_tile,
    row_blocks,
    rows_of_block,
    tile_bounds,
    window_mask,
    window_of,
    window_run,
)
from ..moments import Moments, add_keys, store_dominant, zero_rows
from ..tiles import (
    add_product,
    dot_tiles,
    dot_vector,
    load_tile,
    load_tiles,
    offset,
    plus,
    scaled,
    store_row_sum,
    store_tiles,
    zero_tiles,
)
from .forward import count_outside, load_alpha


class Sums(NamedTuple):
    """Over the window so far: the moments, (ROWS,); sum p (t - reference) k and sum p k, tiles; sum t of the other keys."""

    moments: Any
    high: Any
    low: Any
    outside_slope: Any


@triton.jit
def _mean(slopes, total):
    """slopes / total, and 0 before the first key."""
    return slopes / tl.where(total > 0, total, 1.0)


@triton.jit
def _add_keys_by_mean(moments, p, t):
    """As `add_keys`, with sum p t in `slopes`, relative to their running mean."""
    product = p * t
    total, slopes = moments.total + tl.sum(p, 1), moments.slopes + tl.sum(product, 1)
    mean = _mean(slopes, total)
    return (
        Moments(total, slopes, moments.products, moments.top, mean),
        product - p * mean[:, None],
        moments.reference - mean,
    )


@triton.jit
def _visit_keys(
    sums, q, g, inputs, k_start, v_start, keys, rows, window, lse, scale,
    FULL: tl.constexpr, EVEN: tl.constexpr, WIDE: tl.constexpr, SQUARE: tl.constexpr, EXCLUSIVE: tl.constexpr,
    GW: tl.constexpr, D: tl.constexpr, TILES: tl.constexpr,
):  # fmt: skip
    """Add a tile of keys to the sums of every row."""
    k = load_tiles(inputs.k, k_start, keys.key, keys.exist, D, TILES)
    s = dot_tiles(q, k, TILES)
    v = load_tiles(inputs.v, v_start, keys.key, keys.exist, D, TILES)
    t = dot_tiles(g, v, TILES)
    outside_slope = sums.outside_slope
    inside = keys.exist[None, :]
    if not FULL:
        inside = window_mask(rows.centre, keys.patch, keys.exist, window, GW, SQUARE)
        if not EXCLUSIVE:
            outside_slope -= tl.sum(tl.where(inside, t, 0.0), 1)
    if WIDE:
        # not to be fused, as in `logits`
        p = tl.exp2(tl.where(inside, s * scale, float("-inf")) - lse[:, None])  # (ROWS, KEYS)
        moments, product, change = add_keys(sums.moments, p, t)
    else:
        p = tl.exp2(tl.fma(s, scale, -lse[:, None]))
        if not FULL or not EVEN:
            p = tl.where(inside, p, 0.0)
        moments, product, change = _add_keys_by_mean(sums.moments, p, t)
    high = plus(sums.high, scaled(sums.low, change, TILES), TILES)
    return Sums(moments, add_product(high, product, k, TILES), add_product(sums.low, p, k, TILES), outside_slope)


@triton.jit
def _load_lse(lse, b, h, j, rows, shape, KEY_MASK: tl.constexpr):
    """A row that does not exist, or has no keys, gets e^(s - lse) = 0."""
    at = ((b * shape.N + rows.row).to(tl.int64) * shape.P + j) * shape.H + h
    found = tl.load(lse + at, mask=rows.exist, other=float("inf"))
    if KEY_MASK:
        found = tl.where(found == float("-inf"), float("inf"), found)
    return found


@triton.jit
def backward_queries_kernel(
    grad, inputs, lse, dq, terms, dalpha, rest, shape,
    MASKS: tl.constexpr, FULL: tl.constexpr, HEIGHTS: tl.constexpr, WIDTHS: tl.constexpr,
    SQUARE: tl.constexpr, EXCLUSIVE: tl.constexpr, VIEWS: tl.constexpr, CENTRES: tl.constexpr, KEY_MASK: tl.constexpr,
    ROW_ALPHA: tl.constexpr, WIDE: tl.constexpr, EVEN: tl.constexpr, GW: tl.constexpr, D: tl.constexpr,
    TILES: tl.constexpr, ROWS: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    """Program: one block of rows of one study and head, for one of MASKS, which are all full or none."""
    blocks = row_blocks(shape, GW, ROWS, CENTRES)
    block, task = tl.program_id(0) % blocks, tl.program_id(0) // blocks
    h, b = task % shape.H, task // shape.H // len(MASKS)
    j = element_of(MASKS, task // shape.H % len(MASKS))
    rows = rows_of_block(block, b, inputs.centres, shape, GW, ROWS, CENTRES)
    k_start, v_start, grad_start = offset(inputs.k, b, j, h), offset(inputs.v, b, j, h), offset(grad, b, 0, h)
    q = load_tiles(inputs.q, offset(inputs.q, b, j, h), rows.row, rows.exist, D, TILES)
    g = load_tiles(grad, grad_start, rows.row, rows.exist, D, TILES)
    lse_rows = _load_lse(lse, b, h, j, rows, shape, KEY_MASK)
    window = window_of(HEIGHTS, WIDTHS, j)
    begin, end = 0, shape.M
    start, stop = begin, end
    outside_slope = zero_rows(ROWS)
    if not FULL:
        begin, end = window_run(rows.top, rows.bottom, window.height, shape, GW)
        start, stop = tile_bounds(begin, end, shape, GW, KEYS, VIEWS)
        if not EXCLUSIVE:
            v_sum = inputs.v_sum.data + offset(inputs.v_sum, b, j, h)
            outside_slope = dot_vector(g, v_sum, D, TILES)
    moments = Moments(zero_rows(ROWS), zero_rows(ROWS), zero_rows(ROWS), zero_rows(ROWS), zero_rows(ROWS))
    sums = Sums(moments, zero_tiles(ROWS, TILES), zero_tiles(ROWS, TILES), outside_slope)
    for first in range(start, stop, KEYS):
        keys = keys_of_tile(first, begin, end, b, inputs.key_mask, shape, GW, KEYS, VIEWS and not FULL, KEY_MASK)
        sums = _visit_keys(
            sums, q, g, inputs, k_start, v_start, keys, rows, window, lse_rows, shape.scale,
            FULL, EVEN and not KEY_MASK, WIDE, SQUARE, EXCLUSIVE, GW, D, TILES,
        )  # fmt: skip
    total, slopes, products, u = sums.moments.total, sums.moments.slopes, sums.moments.products, zero_rows(ROWS)
    if not FULL and not EXCLUSIVE:
        n = count_outside(inputs, b, j, rows, window, shape, GW, VIEWS, KEY_MASK)
        u = tl.where(n > 0, tl.exp2(-lse_rows), 0.0)
        total += n * u
        outside_slope = sums.outside_slope
        if WIDE:
            products += u * outside_slope
            outside_slope -= n * sums.moments.reference
        slopes += u * outside_slope
    if KEY_MASK:
        total = tl.where(total > 0, total, 1.0)
    total = tl.where(rows.exist, total, 1.0)
    factor = load_alpha(inputs.alpha, b, j, rows, ROW_ALPHA) / total
    # left is reference - delta
    if WIDE:
        left = -slopes / total
        delta = products / total
    else:
        delta = slopes / total
        left = sums.moments.reference - delta
    gradient = scaled(plus(sums.high, scaled(sums.low, left, TILES), TILES), factor * shape.logit_scale, TILES)
    store_tiles(dq, offset(dq, b, j, h), rows.row, rows.exist, gradient, D, TILES)
    at = ((b * shape.P + j) * shape.H + h).to(tl.int64) * shape.N + rows.row
    tl.store(terms.lse + at, lse_rows, mask=rows.exist)
    tl.store(terms.delta + at, delta, mask=rows.exist)
    tl.store(terms.factor + at, factor, mask=rows.exist)
    if WIDE:
        store_dominant(terms, at, rows.exist, sums.moments.top, left, factor, total)
    if not ROW_ALPHA:
        tl.store(dalpha + ((block * shape.B + b) * shape.P + j) * shape.H + h, tl.sum(delta, 0))
    if not FULL and not EXCLUSIVE:
        # last, when the registers of dq are free again
        masked = factor * u
        tl.store(terms.masked + at, masked, mask=rows.exist)
        share = rest + (block * (tl.num_programs(0) // blocks) + task).to(tl.int64) * D
        for tile in tl.static_range(len(TILES)):
            wide = load_tile(grad, grad_start, rows.row, rows.exist, D, tile * TILES[0], TILES[tile])
            store_row_sum(share, masked, wide, D, tile * TILES[0], TILES[tile])

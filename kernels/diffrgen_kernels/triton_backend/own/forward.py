"""Forward of Eq. 5 for own projections per mask: one program a block of rows of one study and head, all masks in turn.

With the exact shortcut: s = scale q.k, W the window of a row, n the number of keys outside it, M0 = max(0, max_W s), c = e^-M0,

    L = sum_W e^(s - M0) + n c ;   O_j = ( sum_W (e^(s - M0) - c) v + c v_sum ) / L ;   out = sum_j alpha_j O_j

Where n = 0, and with exclusive masks, M0 = max_W s and c = 0. Exponentials are powers of two: s carries a factor log2(e), and
the saved lse is the base-2 logarithm M0 + log2 L. A row without keys has L = 0: out = 0, lse = -inf.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import triton
import triton.language as tl
from torch import Tensor

from ..geometry import (
    element_of,
    keys_of_tile,
    outside_count,
    row_blocks,
    rows_of_block,
    tile_bounds,
    window_mask,
    window_of,
    window_run,
)
from ..launch import output_view
from ..moments import zero_rows
from ..plan import Call, common_arguments, constants_of, launch
from ..tiles import (
    add_product,
    add_vector,
    advance,
    dot_tiles,
    load_tiles,
    offset,
    plus,
    scaled,
    store_tiles,
    zero_tiles,
)


class Softmax(NamedTuple):
    """The running M0 and L of each row, (ROWS,), and its sum of weighted values, tiles."""

    top: Any
    total: Any
    acc: Any


@triton.jit
def count_outside(
    inputs, b, j, rows, window, shape, GW: tl.constexpr, VIEWS: tl.constexpr, KEY_MASK: tl.constexpr
):  # fmt: skip
    """n: the keys outside the window of each row."""
    patches = shape.gh * GW
    if KEY_MASK:
        outside = inputs.outside + (b * shape.P + j).to(tl.int64) * patches
        n = tl.load(outside + rows.centre, mask=rows.exist, other=0)
    else:
        n = outside_count(rows.centre, window, shape.gh, GW)
        if VIEWS:
            n *= shape.M // patches
    return n


@triton.jit
def load_alpha(alpha, b, j, rows, ROW_ALPHA: tl.constexpr):
    """alpha of a mask: a scalar, or (ROWS,) where every row has its own."""
    if ROW_ALPHA:
        start = b.to(tl.int64) * alpha.batch + j * alpha.mask
        weight = tl.load(alpha.data + start + rows.row.to(tl.int64) * alpha.row, mask=rows.exist, other=0.0)
    else:
        weight = tl.load(alpha.data + b * alpha.batch + j * alpha.mask)
    return weight


@triton.jit
def _is_used(alpha, ROW_ALPHA: tl.constexpr):
    """Whether any row weighs a mask."""
    used = alpha
    if ROW_ALPHA:
        used = tl.max(tl.abs(alpha), 0)
    return used != 0


@triton.jit
def _attend_tile(
    state, q, inputs, k_start, v_start, keys, rows, window, floored, scale,
    FULL: tl.constexpr, SQUARE: tl.constexpr, GW: tl.constexpr, D: tl.constexpr, TILES: tl.constexpr,
):  # fmt: skip
    """Bring a tile of keys into the softmax of every row."""
    k = load_tiles(inputs.k, k_start, keys.key, keys.exist, D, TILES)
    s = dot_tiles(q, k, TILES)
    inside = keys.exist[None, :]
    if not FULL:
        inside = window_mask(rows.centre, keys.patch, keys.exist, window, GW, SQUARE)
    s = tl.where(inside, s * scale, float("-inf"))  # (ROWS, KEYS)
    top, total, weight, keep = advance(s, state.top, state.total)
    if not FULL:
        # c = e^-M0 for the running M0, so that it shrinks with the sums when M0 grows
        c = tl.where(floored, tl.exp2(-top), 0.0)
        weight = tl.where(inside, weight - c[:, None], 0.0)
    v = load_tiles(inputs.v, v_start, keys.key, keys.exist, D, TILES)
    return Softmax(top, total, add_product(scaled(state.acc, keep, TILES), weight, v, TILES))


@triton.jit
def _attend_mask(
    out, inputs, lse, b, h, j, alpha, rows, shape,
    HEIGHTS: tl.constexpr, WIDTHS: tl.constexpr, SQUARE: tl.constexpr, EXCLUSIVE: tl.constexpr, VIEWS: tl.constexpr,
    KEY_MASK: tl.constexpr, SAVE_LSE: tl.constexpr, GW: tl.constexpr, D: tl.constexpr, TILES: tl.constexpr,
    ROWS: tl.constexpr, KEYS: tl.constexpr, FULL: tl.constexpr,
):  # fmt: skip
    """out + alpha_j O_j for a block of rows."""
    k_start, v_start = offset(inputs.k, b, j, h), offset(inputs.v, b, j, h)
    q = load_tiles(inputs.q, offset(inputs.q, b, j, h), rows.row, rows.exist, D, TILES)
    window = window_of(HEIGHTS, WIDTHS, j)
    begin, end, n = 0, shape.M, tl.zeros((ROWS,), tl.int32)
    start, stop = begin, end
    if not FULL:
        begin, end = window_run(rows.top, rows.bottom, window.height, shape, GW)
        start, stop = tile_bounds(begin, end, shape, GW, KEYS, VIEWS)
        if not EXCLUSIVE:
            n = count_outside(inputs, b, j, rows, window, shape, GW, VIEWS, KEY_MASK)
    floored = n > 0
    state = Softmax(tl.where(floored, 0.0, float("-inf")), zero_rows(ROWS), zero_tiles(ROWS, TILES))
    for first in range(start, stop, KEYS):
        keys = keys_of_tile(first, begin, end, b, inputs.key_mask, shape, GW, KEYS, VIEWS and not FULL, KEY_MASK)
        state = _attend_tile(
            state, q, inputs, k_start, v_start, keys, rows, window, floored, shape.scale, FULL, SQUARE, GW, D, TILES
        )
    c = tl.where(floored, tl.exp2(-state.top), 0.0)
    total = state.total + n * c
    if KEY_MASK:
        total = tl.where(total > 0, total, 1.0)
    total = tl.where(rows.exist, total, 1.0)
    weight = alpha / total  # (ROWS,)
    out = plus(out, scaled(state.acc, weight, TILES), TILES)
    if not FULL and not EXCLUSIVE:
        v_sum = inputs.v_sum.data + offset(inputs.v_sum, b, j, h)
        out = add_vector(out, weight * c, v_sum, D, TILES)
    if SAVE_LSE:
        at = ((b * shape.N + rows.row).to(tl.int64) * shape.P + j) * shape.H + h
        tl.store(lse + at, state.top + tl.log2(total), mask=rows.exist)
    return out


@triton.jit
def forward_kernel(
    inputs, out, lse, shape,
    FULL_MASKS: tl.constexpr, WINDOW_MASKS: tl.constexpr, HEIGHTS: tl.constexpr, WIDTHS: tl.constexpr,
    SQUARE: tl.constexpr, EXCLUSIVE: tl.constexpr, VIEWS: tl.constexpr, CENTRES: tl.constexpr, KEY_MASK: tl.constexpr,
    ROW_ALPHA: tl.constexpr, SAVE_LSE: tl.constexpr, GW: tl.constexpr, D: tl.constexpr, TILES: tl.constexpr,
    ROWS: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    """Program: one block of rows of one study and head. Without lse a mask with alpha = 0 is not run."""
    blocks = row_blocks(shape, GW, ROWS, CENTRES)
    b, h = tl.program_id(0) // blocks // shape.H, tl.program_id(0) // blocks % shape.H
    rows = rows_of_block(tl.program_id(0) % blocks, b, inputs.centres, shape, GW, ROWS, CENTRES)
    total = zero_tiles(ROWS, TILES)
    if len(FULL_MASKS) > 0:
        for i in range(len(FULL_MASKS)):
            j = element_of(FULL_MASKS, i)
            alpha = load_alpha(inputs.alpha, b, j, rows, ROW_ALPHA)
            if SAVE_LSE or _is_used(alpha, ROW_ALPHA):
                total = _attend_mask(
                    total, inputs, lse, b, h, j, alpha, rows, shape, HEIGHTS, WIDTHS, SQUARE, EXCLUSIVE, VIEWS,
                    KEY_MASK, SAVE_LSE, GW, D, TILES, ROWS, KEYS, True,
                )  # fmt: skip
    if len(WINDOW_MASKS) > 0:
        for i in range(len(WINDOW_MASKS)):
            j = element_of(WINDOW_MASKS, i)
            alpha = load_alpha(inputs.alpha, b, j, rows, ROW_ALPHA)
            if SAVE_LSE or _is_used(alpha, ROW_ALPHA):
                total = _attend_mask(
                    total, inputs, lse, b, h, j, alpha, rows, shape, HEIGHTS, WIDTHS, SQUARE, EXCLUSIVE, VIEWS,
                    KEY_MASK, SAVE_LSE, GW, D, TILES, ROWS, KEYS, False,
                )  # fmt: skip
    store_tiles(out, offset(out, b, 0, h), rows.row, rows.exist, total, D, TILES)


def forward(call: Call, *, needs_lse: bool) -> tuple[Tensor, Tensor]:
    """out (B, N, H, D), and lse (B, N, P, H), a base-2 logarithm, if `needs_lse`, else (0,)."""
    config = call.config("forward")
    out, lse = call.new_results(needs_lse=needs_lse)
    launch(
        forward_kernel,
        call,
        call.row_blocks(config.rows),
        config,
        {**common_arguments(call), "out": output_view(out), "lse": lse},
        {**constants_of(call), "FULL_MASKS": call.full, "WINDOW_MASKS": call.windowed, "SAVE_LSE": needs_lse},
    )
    return out, lse

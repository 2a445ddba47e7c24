"""Gradients of Eq. 5 on the query side for shared projections: dq, what the key side needs of every row, shares of dalpha.

With p, u, Z, t = g.v and delta of each window w as in own/queries.py, where masks with the same window are one with the sum of
their alpha, and the windows are summed before the one product with k:

    ds_l = sum_w alpha_w / Z_w [l in W_w] p_w,l (t_l - delta_w) ;   dq = scale sum_l ds_l k_l

With float32, t and delta are taken relative to t at the largest p of the window, which leaves nothing of a row with one
dominant key.
"""

from __future__ import annotations

import triton
import triton.language as tl

from ..geometry import (
    far_keys,
    keys_of_tile,
    patch_distance,
    row_blocks,
    rows_of_block,
    window_run,
)
from ..moments import Moments, add_keys, store_dominant, zero_rows
from ..tiles import (
    add_product,
    dot_tiles,
    dot_vector,
    load_tiles,
    logits,
    offset,
    scaled,
    store_row_sum,
    store_tiles,
    zero_tiles,
)
from .forward import count_outside, window_alpha


@triton.jit
def _visit_keys(q, g, inputs, k_start, v_start, keys, scale, D: tl.constexpr, TILES: tl.constexpr):
    """Logits and t = g.v of a tile of keys, (ROWS, KEYS) each, and the keys."""
    k = load_tiles(inputs.k, k_start, keys.key, keys.exist, D, TILES)
    v = load_tiles(inputs.v, v_start, keys.key, keys.exist, D, TILES)
    return logits(q, k, keys.exist, scale, TILES), dot_tiles(g, v, TILES), k


@triton.jit
def _gather(moments, outside_slope, s, t, lse, u, inside, FLOORED: tl.constexpr, WIDE: tl.constexpr):
    """The moments of a window with a tile of keys, and sum t of its other keys; without WIDE, p - u instead of p in slopes."""
    p = tl.where(inside, tl.exp2(s - lse[:, None]), 0.0)
    if WIDE:
        if FLOORED:
            outside_slope -= tl.sum(tl.where(inside, t, 0.0), 1)
        gathered, _, _ = add_keys(moments, p, t)
    else:
        total = moments.total + tl.sum(p, 1)
        if FLOORED:
            p = tl.where(inside, p - u[:, None], 0.0)
        slopes = moments.slopes + tl.sum(p * t, 1)
        gathered = Moments(total, slopes, moments.products, moments.top, moments.reference)
    return gathered, outside_slope


@triton.jit
def shared_backward_queries_kernel(
    grad, inputs, lse, dq, terms, dalpha, rest, shape,
    REACHES: tl.constexpr, WINDOW_OF: tl.constexpr, WHOLE: tl.constexpr, FLOORED: tl.constexpr, WIDE: tl.constexpr,
    GW: tl.constexpr, D: tl.constexpr, TILES: tl.constexpr, ROWS: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    """Program: one block of rows of one study and head; visits every key once for Z and delta, and once for dq."""
    blocks = row_blocks(shape, GW, ROWS, False)
    block = tl.program_id(0) % blocks
    b, h = tl.program_id(0) // blocks // shape.H, tl.program_id(0) // blocks % shape.H
    rows = rows_of_block(block, b, inputs.centres, shape, GW, ROWS, False)
    k_start, v_start = offset(inputs.k, b, 0, h), offset(inputs.v, b, 0, h)
    q = load_tiles(inputs.q, offset(inputs.q, b, 0, h), rows.row, rows.exist, D, TILES)
    g = load_tiles(grad, offset(grad, b, 0, h), rows.row, rows.exist, D, TILES)
    begin, end = 0, 0
    if len(REACHES) > WHOLE:
        begin, end = window_run(rows.top, rows.bottom, REACHES[WHOLE], shape, GW)

    lses, us, gathered, outside_slopes = (), (), (), ()
    for w in tl.static_range(len(REACHES)):
        lse_w = lse
        for j in tl.static_range(len(WINDOW_OF)):
            if WINDOW_OF[j] == w:
                lse_w = lse + ((b * shape.N + rows.row).to(tl.int64) * shape.P + j) * shape.H + h
        # a row that does not exist has p = u = 0
        lse_rows = tl.load(lse_w, mask=rows.exist, other=float("inf"))
        u = zero_rows(ROWS)
        if FLOORED:
            u = tl.where(count_outside(rows.centre, REACHES[w], shape, GW) > 0, tl.exp2(-lse_rows), 0.0)
        lses += (lse_rows,)
        us += (u,)
        gathered += (Moments(zero_rows(ROWS), zero_rows(ROWS), zero_rows(ROWS), zero_rows(ROWS), zero_rows(ROWS)),)
        outside_slopes += (zero_rows(ROWS),)

    if WHOLE:
        far_moments = gathered[0]
        far = shape.M - (end - begin)
        for first in range(0, far, KEYS):
            keys = far_keys(first, far, begin, end, KEYS)
            s, t, k = _visit_keys(q, g, inputs, k_start, v_start, keys, shape.scale, D, TILES)
            far_moments, _ = _gather(
                far_moments, outside_slopes[0], s, t, lses[0], us[0], keys.exist[None, :], False, WIDE
            )
        gathered = (far_moments,) + gathered[1:]
    for first in range(begin, end, KEYS):
        keys = keys_of_tile(first, begin, end, b, inputs.key_mask, shape, GW, KEYS, False, False)
        s, t, k = _visit_keys(q, g, inputs, k_start, v_start, keys, shape.scale, D, TILES)
        rings = patch_distance(rows.centre[:, None], keys.patch[None, :], GW)
        # keys that do not exist lie in no window
        rings = tl.where(keys.exist[None, :], rings, 1 << 30)
        new_gathered, new_slopes = (), ()
        for w in tl.static_range(len(REACHES)):
            moments, outside_slope = _gather(
                gathered[w], outside_slopes[w], s, t, lses[w], us[w], rings <= REACHES[w], FLOORED, WIDE
            )
            new_gathered += (moments,)
            new_slopes += (outside_slope,)
        gathered, outside_slopes = new_gathered, new_slopes

    factors, sums, counts, shares = (), (), (), zero_rows(ROWS)
    for w in tl.static_range(len(REACHES)):
        total, n = gathered[w].total, tl.zeros((ROWS,), tl.int32)
        if FLOORED:
            n = count_outside(rows.centre, REACHES[w], shape, GW)
            total += n * us[w]
        total = tl.where(rows.exist, total, 1.0)
        factor = window_alpha(inputs.alpha, b, w, WINDOW_OF) / total
        shares += factor * us[w]
        factors += (factor,)
        sums += (total,)
        counts += (n,)
    all_slope = zero_rows(ROWS)
    if FLOORED:
        v_sum = inputs.v_sum.data + offset(inputs.v_sum, b, 0, h)
        share = rest + ((block * shape.B + b) * shape.H + h).to(tl.int64) * D
        for tile in tl.static_range(len(TILES)):
            store_row_sum(share, shares, g[tile], D, tile * TILES[0], TILES[tile])
        all_slope = dot_vector(g, v_sum, D, TILES)
    # delta is reference + step, but for rounding
    references, steps = (), ()
    for w in tl.static_range(len(REACHES)):
        reference, outside_slope = gathered[w].reference, all_slope
        if WIDE:
            outside_slope += outside_slopes[w]
            delta = (gathered[w].products + us[w] * outside_slope) / sums[w]
            outside_slope -= counts[w] * reference
        step = (gathered[w].slopes + us[w] * outside_slope) / sums[w]
        if not WIDE:
            delta = step
        at = ((b * len(REACHES) + w) * shape.H + h).to(tl.int64) * shape.N + rows.row
        tl.store(terms.lse + at, lses[w], mask=rows.exist)
        tl.store(terms.delta + at, delta, mask=rows.exist)
        tl.store(terms.factor + at, factors[w], mask=rows.exist)
        tl.store(terms.masked + at, factors[w] * us[w], mask=rows.exist)
        if WIDE:
            store_dominant(terms, at, rows.exist, gathered[w].top, -step, factors[w], sums[w])
        for j in tl.static_range(len(WINDOW_OF)):
            if WINDOW_OF[j] == w:
                tl.store(dalpha + ((block * shape.B + b) * shape.P + j) * shape.H + h, tl.sum(delta, 0))
        references += (reference,)
        steps += (step,)

    gradient = zero_tiles(ROWS, TILES)
    if WHOLE:
        for first in range(0, far, KEYS):
            keys = far_keys(first, far, begin, end, KEYS)
            s, t, k = _visit_keys(q, g, inputs, k_start, v_start, keys, shape.scale, D, TILES)
            slope = _slope(s, t, lses[0], factors[0], references[0], steps[0], WIDE)
            gradient = add_product(gradient, slope, k, TILES)
    for first in range(begin, end, KEYS):
        keys = keys_of_tile(first, begin, end, b, inputs.key_mask, shape, GW, KEYS, False, False)
        s, t, k = _visit_keys(q, g, inputs, k_start, v_start, keys, shape.scale, D, TILES)
        rings = patch_distance(rows.centre[:, None], keys.patch[None, :], GW)
        slope = tl.zeros((ROWS, KEYS), tl.float32)
        for w in tl.static_range(len(REACHES)):
            slope_w = _slope(s, t, lses[w], factors[w], references[w], steps[w], WIDE)
            slope += tl.where(rings <= REACHES[w], slope_w, 0.0)
        gradient = add_product(gradient, slope, k, TILES)
    gradient = scaled(gradient, zero_rows(ROWS) + shape.logit_scale, TILES)
    store_tiles(dq, offset(dq, b, 0, h), rows.row, rows.exist, gradient, D, TILES)


@triton.jit
def _slope(s, t, lse, factor, reference, step, WIDE: tl.constexpr):
    """alpha times the derivatives of the logits of a window, (ROWS, KEYS)."""
    if WIDE:
        t -= reference[:, None]
    return factor[:, None] * tl.exp2(s - lse[:, None]) * (t - step[:, None])

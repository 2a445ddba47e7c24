"""Gradients of Eq. 5 on the key side for shared projections: dk and dv of one block of keys, all masks at once.

With ds of queries.py, and over the rows of which a window W_w holds a key:

    dk = scale sum_rows ds q ;   dv = sum_rows g sum_w alpha_w / Z_w (p_w - u_w)[l in W_w] + sum_all g sum_w alpha_w u_w / Z_w

Rows whose windows can hold a key ("near") are those of the patches round it, once in every cycle of gh gw rows; the others
("far") are visited only where a mask is the whole grid, and for it alone.
"""

from __future__ import annotations

import triton
import triton.language as tl

from ..geometry import outside_run, patch_distance, window_run
from ..key_sums import KeySums, store_keys
from ..moments import weigh
from ..tiles import add_product, dot_tiles, load_tiles, offset, zero_tiles


@triton.jit
def _visit_rows(
    sums, k, v, keys, grad, inputs, q_start, grad_start, terms, row_start, rows, centres, exist, shape,
    REACHES: tl.constexpr, FLOORED: tl.constexpr, WIDE: tl.constexpr, NEAR: tl.constexpr, GW: tl.constexpr,
    D: tl.constexpr, TILES: tl.constexpr,
):  # fmt: skip
    """Add a tile of rows to the sums of every key: of all windows if NEAR, else of the first.

    A row that does not exist has p = 0.
    """
    q = load_tiles(inputs.q, q_start, rows, exist, D, TILES)
    g = load_tiles(grad, grad_start, rows, exist, D, TILES)
    s = shape.scale * dot_tiles(k, q, TILES)
    s = tl.where(exist[None, :], s, 0.0)  # (KEYS, ROWS); not to be fused, as in `logits`
    t = dot_tiles(v, g, TILES)
    weight, slope = tl.zeros_like(s), tl.zeros_like(s)
    if NEAR:
        rings = patch_distance(keys[:, None], centres[None, :], GW)
    for w in tl.static_range(len(REACHES) if NEAR else 1):
        at = row_start + w * shape.H * shape.N + rows
        if WIDE:
            s_w = s
            if NEAR:
                s_w = tl.where(rings <= REACHES[w], s, float("-inf"))
            p, slope_w = weigh(s_w, t, terms, at, exist)
        else:
            lse = tl.load(terms.lse + at, mask=exist, other=float("inf"))
            factor = tl.load(terms.factor + at, mask=exist, other=0.0)
            delta = tl.load(terms.delta + at, mask=exist, other=0.0)
            p = factor[None, :] * tl.exp2(s - lse[None, :])
            if NEAR:
                p = tl.where(rings <= REACHES[w], p, 0.0)
            slope_w = p * (t - delta[None, :])
        slope += slope_w
        weight += p
        if NEAR and FLOORED:
            masked = tl.load(terms.masked + at, mask=exist, other=0.0)
            weight -= tl.where(rings <= REACHES[w], masked[None, :], 0.0)
    return KeySums(add_product(sums.dk, slope, q, TILES), add_product(sums.dv, weight, g, TILES))


@triton.jit
def shared_backward_keys_kernel(
    grad, inputs, terms, rest, dk, dv, shape,
    REACHES: tl.constexpr, WINDOW_OF: tl.constexpr, WHOLE: tl.constexpr, FLOORED: tl.constexpr, WIDE: tl.constexpr,
    GW: tl.constexpr, D: tl.constexpr, TILES: tl.constexpr, ROWS: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    """Program: one block of keys of one study and head."""
    blocks = tl.cdiv(shape.M, KEYS)
    first = tl.program_id(0) % blocks * KEYS
    b, h = tl.program_id(0) // blocks // shape.H, tl.program_id(0) // blocks % shape.H
    keys = first + tl.arange(0, KEYS)
    exist = keys < shape.M
    k = load_tiles(inputs.k, offset(inputs.k, b, 0, h), keys, exist, D, TILES)
    v = load_tiles(inputs.v, offset(inputs.v, b, 0, h), keys, exist, D, TILES)
    q_start, grad_start = offset(inputs.q, b, 0, h), offset(grad, b, 0, h)
    row_start = (b * len(REACHES) * shape.H + h).to(tl.int64) * shape.N
    # cycles, and patches of one that have a row
    cycles, cycle = tl.cdiv(shape.N, shape.M), tl.minimum(shape.N, shape.M)
    begin, end = 0, 0
    if len(REACHES) > WHOLE:
        top, bottom = first // GW, tl.minimum(first + KEYS - 1, shape.M - 1) // GW
        begin, end = window_run(top, bottom, REACHES[WHOLE], shape, GW)
        begin, end = tl.minimum(begin, cycle), tl.minimum(end, cycle)

    sums = KeySums(zero_tiles(KEYS, TILES), zero_tiles(KEYS, TILES))
    near = tl.cdiv(end - begin, ROWS)
    for tile in range(cycles * near):
        centres = begin + tile % near * ROWS + tl.arange(0, ROWS)
        rows = tile // near * shape.M + centres
        sums = _visit_rows(
            sums, k, v, keys, grad, inputs, q_start, grad_start, terms, row_start, rows, centres,
            (centres < end) & (rows < shape.N), shape, REACHES, FLOORED, WIDE, True, GW, D, TILES,
        )  # fmt: skip
    if WHOLE:
        others = cycle - (end - begin)
        far = tl.cdiv(others, ROWS)
        for tile in range(cycles * far):
            index = tile % far * ROWS + tl.arange(0, ROWS)
            centres = outside_run(index, begin, end)
            rows = tile // far * shape.M + centres
            sums = _visit_rows(
                sums, k, v, keys, grad, inputs, q_start, grad_start, terms, row_start, rows, centres,
                (index < others) & (rows < shape.N), shape, REACHES, FLOORED, WIDE, False, GW, D, TILES,
            )  # fmt: skip
    sum_start = rest + (b * shape.H + h) * D
    store_keys(dk, dv, sums, sum_start, b, h, 0, keys, exist, exist, shape.logit_scale, FLOORED, False, D, TILES)

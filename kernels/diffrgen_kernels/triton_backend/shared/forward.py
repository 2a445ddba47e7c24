"""Forward of Eq. 5 for shared projections: one program a block of rows of one study and head, all masks at once.

The masks share the logits s = scale q.k, so masks with the same window are one, with the sum of their alpha; and the weights
of all windows are summed before the one product with v:

    out = sum_l v_l sum_w alpha_w / L_w (e^(s_l - M0_w) - c_w)[l in W_w]  +  (sum_w alpha_w c_w / L_w) v_sum

with M0, c and L of each window as in own/forward.py. Keys that only the whole grid holds ("far") are visited once, with an
online softmax; the run of keys round the block that the other windows hold ("near") twice: for M0 and L, then for the values.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from ..geometry import (
    Window,
    far_keys,
    keys_of_tile,
    outside_count,
    patch_distance,
    row_blocks,
    rows_of_block,
    window_run,
)
from ..launch import output_view
from ..moments import zero_rows
from ..plan import Call, common_arguments, launch, shared_constants
from ..tiles import (
    add_product,
    add_vector,
    advance,
    load_tiles,
    logits,
    offset,
    scaled,
    store_tiles,
    zero_tiles,
)


@triton.jit
def window_alpha(alpha, b, w: tl.constexpr, WINDOW_OF: tl.constexpr):
    """The sum of alpha over the masks of a window."""
    alpha_w = 0.0
    for j in tl.static_range(len(WINDOW_OF)):
        if WINDOW_OF[j] == w:
            alpha_w += tl.load(alpha.data + b * alpha.batch + j * alpha.mask)
    return alpha_w


@triton.jit
def count_outside(centres, order, shape, GW: tl.constexpr):
    """Keys outside the square window of an order."""
    return outside_count(centres, Window(order, order), shape.gh, GW)


@triton.jit
def shared_forward_kernel(
    inputs, out, lse, shape,
    REACHES: tl.constexpr, WINDOW_OF: tl.constexpr, WHOLE: tl.constexpr, FLOORED: tl.constexpr,
    SAVE_LSE: tl.constexpr, GW: tl.constexpr, D: tl.constexpr, TILES: tl.constexpr,
    ROWS: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    """Program: one block of rows of one study and head. Without lse, keys that no alpha weighs are not visited."""
    blocks = row_blocks(shape, GW, ROWS, False)
    b, h = tl.program_id(0) // blocks // shape.H, tl.program_id(0) // blocks % shape.H
    rows = rows_of_block(tl.program_id(0) % blocks, b, inputs.centres, shape, GW, ROWS, False)
    k_start, v_start = offset(inputs.k, b, 0, h), offset(inputs.v, b, 0, h)
    q = load_tiles(inputs.q, offset(inputs.q, b, 0, h), rows.row, rows.exist, D, TILES)

    tops, totals, outsides, alphas, reach = (), (), (), (), -1
    for w in tl.static_range(len(REACHES)):
        alpha_w = window_alpha(inputs.alpha, b, w, WINDOW_OF)
        if w >= WHOLE:
            reach = tl.maximum(reach, tl.where(SAVE_LSE or alpha_w != 0, REACHES[w], -1))
        n = tl.zeros((ROWS,), tl.int32)
        if FLOORED:
            n = count_outside(rows.centre, REACHES[w], shape, GW)
        tops += (tl.where(n > 0, 0.0, float("-inf")),)
        totals += (zero_rows(ROWS),)
        outsides += (n,)
        alphas += (alpha_w,)
    begin, end = 0, 0
    if reach >= 0:
        begin, end = window_run(rows.top, rows.bottom, reach, shape, GW)

    values = zero_tiles(ROWS, TILES)
    if WHOLE:
        far_top, far_total = tops[0], totals[0]
        far = tl.where(SAVE_LSE or alphas[0] != 0, shape.M - (end - begin), 0)
        for first in range(0, far, KEYS):
            keys = far_keys(first, far, begin, end, KEYS)
            k = load_tiles(inputs.k, k_start, keys.key, keys.exist, D, TILES)
            s = logits(q, k, keys.exist, shape.scale, TILES)  # (ROWS, KEYS)
            far_top, far_total, weight, keep = advance(s, far_top, far_total)
            v = load_tiles(inputs.v, v_start, keys.key, keys.exist, D, TILES)
            values = add_product(scaled(values, keep, TILES), weight, v, TILES)
        tops, totals = (far_top,) + tops[1:], (far_total,) + totals[1:]

    for first in range(begin, end, KEYS):
        keys = keys_of_tile(first, begin, end, b, inputs.key_mask, shape, GW, KEYS, False, False)
        k = load_tiles(inputs.k, k_start, keys.key, keys.exist, D, TILES)
        s = logits(q, k, keys.exist, shape.scale, TILES)  # (ROWS, KEYS)
        rings = patch_distance(rows.centre[:, None], keys.patch[None, :], GW)
        new_tops, new_totals = (), ()
        for w in tl.static_range(len(REACHES)):
            inside = tl.where(rings <= REACHES[w], s, float("-inf"))
            top, total, weight, keep = advance(inside, tops[w], totals[w])
            new_tops += (top,)
            new_totals += (total,)
        tops, totals = new_tops, new_totals

    factors, rests, rest = (), (), zero_rows(ROWS)
    for w in tl.static_range(len(REACHES)):
        c = tl.where(outsides[w] > 0, tl.exp2(-tops[w]), 0.0)
        total = totals[w] + outsides[w] * c
        total = tl.where(total > 0, total, 1.0)  # 0: the row does not exist, or alpha = 0 and nothing was visited
        factors += (alphas[w] / total,)
        rests += (alphas[w] / total * c,)
        rest += alphas[w] / total * c
        if SAVE_LSE:
            for j in tl.static_range(len(WINDOW_OF)):
                if WINDOW_OF[j] == w:
                    at = ((b * shape.N + rows.row).to(tl.int64) * shape.P + j) * shape.H + h
                    tl.store(lse + at, tops[w] + tl.log2(total), mask=rows.exist)
    if WHOLE:
        scaling = factors[0] * tl.exp2(far_top - tops[0])
        values = scaled(values, tl.where(far_total > 0, scaling, 0.0), TILES)

    for first in range(begin, end, KEYS):
        keys = keys_of_tile(first, begin, end, b, inputs.key_mask, shape, GW, KEYS, False, False)
        k = load_tiles(inputs.k, k_start, keys.key, keys.exist, D, TILES)
        s = logits(q, k, keys.exist, shape.scale, TILES)  # (ROWS, KEYS)
        rings = patch_distance(rows.centre[:, None], keys.patch[None, :], GW)
        weight = tl.zeros((ROWS, KEYS), tl.float32)
        for w in tl.static_range(len(REACHES)):
            own = factors[w][:, None] * tl.exp2(s - tops[w][:, None]) - rests[w][:, None]
            weight += tl.where(rings <= REACHES[w], own, 0.0)
        v = load_tiles(inputs.v, v_start, keys.key, keys.exist, D, TILES)
        values = add_product(values, weight, v, TILES)

    if FLOORED:
        v_sum = inputs.v_sum.data + offset(inputs.v_sum, b, 0, h)
        values = add_vector(values, rest, v_sum, D, TILES)
    store_tiles(out, offset(out, b, 0, h), rows.row, rows.exist, values, D, TILES)


def forward(call: Call, *, needs_lse: bool) -> tuple[Tensor, Tensor]:
    """out (B, N, H, D), and lse (B, N, P, H), a base-2 logarithm, if `needs_lse`, else (0,)."""
    config = call.config("shared_forward")
    out, lse = call.new_results(needs_lse=needs_lse)
    launch(
        shared_forward_kernel,
        call,
        call.row_blocks(config.rows),
        config,
        {**common_arguments(call), "out": output_view(out), "lse": lse},
        {**shared_constants(call), "SAVE_LSE": needs_lse},
    )
    return out, lse

"""Forward of Eq. 5 for shared projections: one program a block of rows of one study and head, all masks at once.

The masks share the logits s = scale q.k, so masks with the same window are one, with the sum of their alpha; and the weights
of all windows are summed before the one product with v:

    out = sum_l v_l sum_w alpha_w / L_w (e^(s_l - M0_w) - c_w)[l in W_w]  +  (sum_w alpha_w c_w / L_w) sum_all v

with M0, c and L of each window as in own_forward.py. Keys that only the whole grid holds ("far") are visited once, with an
online softmax; the run of keys round the block that the other windows hold ("near") twice: for M0 and L, then for the values.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from diffrgen_kernels.contract import MaskSpec
from diffrgen_kernels.triton_backend.geometry import far_keys, outside_count, patch_distance, rows_of_block, window_run
from diffrgen_kernels.triton_backend.large import forward_launch, sum_over_keys
from diffrgen_kernels.triton_backend.launch import empty_results
from diffrgen_kernels.triton_backend.plan import shared_constants
from diffrgen_kernels.triton_backend.tiles import (
    add_product,
    add_vector,
    advance,
    load_pair,
    logits,
    offset,
    store_pair,
)


@triton.jit
def window_alpha(alpha, w: tl.constexpr, WINDOW_OF: tl.constexpr):
    """The sum of alpha over the masks of a window."""
    alpha_w = 0.0
    for j in tl.static_range(len(WINDOW_OF)):
        if WINDOW_OF[j] == w:
            alpha_w += tl.load(alpha + j)
    return alpha_w


@triton.jit
def shared_forward_kernel(
    q, k, v, value_sum, alpha, out, lse, N, M, P, H, gh, gw: tl.constexpr, scale,
    REACHES: tl.constexpr, WINDOW_OF: tl.constexpr, WHOLE: tl.constexpr, FLOORED: tl.constexpr,
    SAVE_LSE: tl.constexpr, D: tl.constexpr, D0: tl.constexpr, D1: tl.constexpr,
    ROWS: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    """Program: one block of rows of one study and head. Without lse, keys that no alpha weighs are not visited."""
    blocks = tl.cdiv(N, M) * tl.cdiv(tl.minimum(N, M), ROWS)
    b, h = tl.program_id(0) // blocks // H, tl.program_id(0) // blocks % H
    first_patch, patches, rows, valid = rows_of_block(tl.program_id(0) % blocks, N, M, ROWS)
    k_start, v_start = offset(k, b, 0, h), offset(v, b, 0, h)
    q0, q1 = load_pair(q, offset(q, b, 0, h), rows, valid, D, D0, D1)

    tops, totals, outsides, alphas, reach = (), (), (), (), -1
    for w in tl.static_range(len(REACHES)):
        alpha_w = window_alpha(alpha + b * P, w, WINDOW_OF)
        if w >= WHOLE:
            reach = tl.maximum(reach, tl.where(SAVE_LSE or alpha_w != 0, REACHES[w], -1))
        outside = tl.zeros((ROWS,), tl.int32)
        if FLOORED:
            outside = outside_count(patches, REACHES[w], gh, gw)
        tops += (tl.where(outside > 0, 0.0, float("-inf")),)
        totals += (tl.zeros((ROWS,), tl.float32),)
        outsides += (outside,)
        alphas += (alpha_w,)
    begin, end = 0, 0
    if reach >= 0:
        begin, end = window_run(first_patch, reach, M, gh, gw, ROWS)

    acc0 = tl.zeros((ROWS, D0), tl.float32)
    acc1 = tl.zeros((ROWS, D1 if D1 > 0 else 1), tl.float32)
    if WHOLE:
        far_top, far_total = tops[0], totals[0]
        far = tl.where(SAVE_LSE or alphas[0] != 0, M - (end - begin), 0)
        for first in range(0, far, KEYS):
            keys, exist = far_keys(first, far, begin, end, KEYS)
            k0, k1 = load_pair(k, k_start, keys, exist, D, D0, D1)
            s = logits(q0, q1, k0, k1, exist, scale, D1)  # (ROWS, KEYS)
            far_top, far_total, weight, keep = advance(s, far_top, far_total)
            acc0, acc1 = acc0 * keep[:, None], acc1 * keep[:, None]
            v0, v1 = load_pair(v, v_start, keys, exist, D, D0, D1)
            acc0, acc1 = add_product(acc0, acc1, weight, v0, v1, D1)
        tops, totals = (far_top,) + tops[1:], (far_total,) + totals[1:]

    for first in range(begin, end, KEYS):
        keys = first + tl.arange(0, KEYS)
        exist = keys < end
        k0, k1 = load_pair(k, k_start, keys, exist, D, D0, D1)
        s = logits(q0, q1, k0, k1, exist, scale, D1)  # (ROWS, KEYS)
        rings = patch_distance(patches[:, None], keys[None, :], gw)
        new_tops, new_totals = (), ()
        for w in tl.static_range(len(REACHES)):
            inside = tl.where(rings <= REACHES[w], s, float("-inf"))
            top, total, weight, keep = advance(inside, tops[w], totals[w])
            new_tops += (top,)
            new_totals += (total,)
        tops, totals = new_tops, new_totals

    factors, rests, rest = (), (), tl.zeros((ROWS,), tl.float32)
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
                    lse_j = lse + ((b * N + rows).to(tl.int64) * P + j) * H + h
                    tl.store(lse_j, tops[w] + tl.log2(total), mask=valid)
    if WHOLE:
        scaling = factors[0] * tl.exp2(far_top - tops[0])
        scaling = tl.where(far_total > 0, scaling, 0.0)
        acc0, acc1 = acc0 * scaling[:, None], acc1 * scaling[:, None]

    for first in range(begin, end, KEYS):
        keys = first + tl.arange(0, KEYS)
        exist = keys < end
        k0, k1 = load_pair(k, k_start, keys, exist, D, D0, D1)
        s = logits(q0, q1, k0, k1, exist, scale, D1)  # (ROWS, KEYS)
        rings = patch_distance(patches[:, None], keys[None, :], gw)
        weight = tl.zeros((ROWS, KEYS), tl.float32)
        for w in tl.static_range(len(REACHES)):
            own = factors[w][:, None] * tl.exp2(s - tops[w][:, None]) - rests[w][:, None]
            weight += tl.where(rings <= REACHES[w], own, 0.0)
        v0, v1 = load_pair(v, v_start, keys, exist, D, D0, D1)
        acc0, acc1 = add_product(acc0, acc1, weight, v0, v1, D1)

    if FLOORED:
        acc0, acc1 = add_vector(acc0, acc1, rest, value_sum + (b * H + h) * D, D, D0, D1)
    store_pair(out, offset(out, b, 0, h), rows, valid, acc0, acc1, D, D0, D1)


def forward(
    q: Tensor, k: Tensor, v: Tensor, alpha: Tensor, spec: MaskSpec, *, needs_grad: bool
) -> tuple[Tensor, Tensor]:
    """out (B, N, H, D), and lse (B, N, P, H) in powers of two if `needs_grad`, else (0,); q, k, v have one mask axis."""
    fixed = shared_constants(q.shape[4], spec)
    out, lse = empty_results(q, alpha, needs_grad=needs_grad)
    value_sum = sum_over_keys(v, fixed["FLOORED"])
    forward_launch("shared_forward", shared_forward_kernel, fixed, q, k, v, value_sum, alpha, out, lse, spec).run()
    return out, lse

"""Gradients of Eq. 5 on the query side for shared projections: dq, what the key side needs of every row, shares of dalpha.

With p, u, Z, t = g.v and delta of each window w as in backward_queries.py, where masks with the same window are one with the
sum of their alpha, and the windows are summed before the one product with k:

    ds_l = sum_w alpha_w / Z_w [l in W_w] p_w,l (t_l - delta_w) ;   dq = scale sum_l ds_l k_l
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from diffrgen_kernels.contract import MaskSpec
from diffrgen_kernels.triton_backend.backward_queries import RowTerms
from diffrgen_kernels.triton_backend.configs import config_for
from diffrgen_kernels.triton_backend.geometry import (
    far_keys,
    outside_count,
    patch_distance,
    rows_of_block,
    window_run,
)
from diffrgen_kernels.triton_backend.large import operands
from diffrgen_kernels.triton_backend.launch import Launch, output_view, projection_view
from diffrgen_kernels.triton_backend.plan import row_blocks, shared_constants
from diffrgen_kernels.triton_backend.shared_forward import window_alpha
from diffrgen_kernels.triton_backend.tiles import (
    add_product,
    dot_pairs,
    load_pair,
    load_vector,
    logits,
    offset,
    store_pair,
)


@triton.jit
def _visit_keys(
    q0, q1, g0, g1, k, v, k_start, v_start, keys, exist, scale, D: tl.constexpr, D0: tl.constexpr, D1: tl.constexpr
):  # fmt: skip
    """Logits and slopes g.v of a tile of keys, (ROWS, KEYS) each, and the keys."""
    k0, k1 = load_pair(k, k_start, keys, exist, D, D0, D1)
    v0, v1 = load_pair(v, v_start, keys, exist, D, D0, D1)
    return logits(q0, q1, k0, k1, exist, scale, D1), dot_pairs(g0, g1, v0, v1, D1), k0, k1


@triton.jit
def _share_rest(g, rest, sums, shares, FROM: tl.constexpr, WIDTH: tl.constexpr, D: tl.constexpr):
    """Store sum_rows rest g, a share of dv for all keys; return g . sum_all v of every row, for WIDTH elements."""
    wide = g.to(tl.float32)
    dims = FROM + tl.arange(0, WIDTH)
    tl.store(shares + dims, tl.sum(wide * rest[:, None], 0), mask=dims < D)
    return tl.sum(wide * load_vector(sums, FROM, WIDTH, D)[None, :], 1)


@triton.jit
def shared_backward_queries_kernel(
    grad, q, k, v, value_sum, alpha, lse, dq, terms, dalpha, shares, B, N, M, P, H, gh, gw: tl.constexpr, scale, logit_scale,
    REACHES: tl.constexpr, WINDOW_OF: tl.constexpr, WHOLE: tl.constexpr, FLOORED: tl.constexpr,
    D: tl.constexpr, D0: tl.constexpr, D1: tl.constexpr, ROWS: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    """Program: one block of rows of one study and head; visits every key once for Z and delta, and once for dq."""
    blocks = tl.cdiv(N, M) * tl.cdiv(tl.minimum(N, M), ROWS)
    block = tl.program_id(0) % blocks
    b, h = tl.program_id(0) // blocks // H, tl.program_id(0) // blocks % H
    first_patch, patches, rows, valid = rows_of_block(block, N, M, ROWS)
    k_start, v_start = offset(k, b, 0, h), offset(v, b, 0, h)
    q0, q1 = load_pair(q, offset(q, b, 0, h), rows, valid, D, D0, D1)
    g0, g1 = load_pair(grad, offset(grad, b, 0, h), rows, valid, D, D0, D1)
    begin, end = 0, 0
    if len(REACHES) > WHOLE:
        begin, end = window_run(first_patch, REACHES[WHOLE], M, gh, gw, ROWS)

    lses, us, totals, slopes = (), (), (), ()
    for w in tl.static_range(len(REACHES)):
        lse_w = lse
        for j in tl.static_range(len(WINDOW_OF)):
            if WINDOW_OF[j] == w:
                lse_w = lse + ((b * N + rows).to(tl.int64) * P + j) * H + h
        # a row that does not exist has p = u = 0
        lse_rows = tl.load(lse_w, mask=valid, other=float("inf"))
        u = tl.zeros((ROWS,), tl.float32)
        if FLOORED:
            u = tl.where(outside_count(patches, REACHES[w], gh, gw) > 0, tl.exp2(-lse_rows), 0.0)
        lses += (lse_rows,)
        us += (u,)
        totals += (tl.zeros((ROWS,), tl.float32),)
        slopes += (tl.zeros((ROWS,), tl.float32),)

    if WHOLE:
        far_total, far_slope = totals[0], slopes[0]
        far = M - (end - begin)
        for first in range(0, far, KEYS):
            keys, exist = far_keys(first, far, begin, end, KEYS)
            s, slope, k0, k1 = _visit_keys(q0, q1, g0, g1, k, v, k_start, v_start, keys, exist, scale, D, D0, D1)
            p = tl.exp2(s - lses[0][:, None])
            far_total += tl.sum(p, 1)
            far_slope += tl.sum(p * slope, 1)
        totals, slopes = (far_total,) + totals[1:], (far_slope,) + slopes[1:]
    for first in range(begin, end, KEYS):
        keys = first + tl.arange(0, KEYS)
        exist = keys < end
        s, slope, k0, k1 = _visit_keys(q0, q1, g0, g1, k, v, k_start, v_start, keys, exist, scale, D, D0, D1)
        rings = patch_distance(patches[:, None], keys[None, :], gw)
        new_totals, new_slopes = (), ()
        for w in tl.static_range(len(REACHES)):
            inside = rings <= REACHES[w]
            p = tl.where(inside, tl.exp2(s - lses[w][:, None]), 0.0)
            new_totals += (totals[w] + tl.sum(p, 1),)
            if FLOORED:
                p = tl.where(inside, p - us[w][:, None], 0.0)
            new_slopes += (slopes[w] + tl.sum(p * slope, 1),)
        totals, slopes = new_totals, new_slopes

    factors, rest, all_slope = (), tl.zeros((ROWS,), tl.float32), tl.zeros((ROWS,), tl.float32)
    new_totals = ()
    for w in tl.static_range(len(REACHES)):
        total = totals[w]
        if FLOORED:
            total += outside_count(patches, REACHES[w], gh, gw) * us[w]
        total = tl.where(valid, total, 1.0)
        factor = window_alpha(alpha + b * P, w, WINDOW_OF) / total
        rest += factor * us[w]
        factors += (factor,)
        new_totals += (total,)
    if FLOORED:
        sums, share = value_sum + (b * H + h) * D, shares + ((block * B + b) * H + h).to(tl.int64) * D
        all_slope += _share_rest(g0, rest, sums, share, 0, D0, D)
        if D1 > 0:
            all_slope += _share_rest(g1, rest, sums, share, D0, D1, D)
    deltas = ()
    for w in tl.static_range(len(REACHES)):
        delta = (slopes[w] + us[w] * all_slope) / new_totals[w]
        term = ((b * len(REACHES) + w) * H + h).to(tl.int64) * N + rows
        tl.store(terms.lse + term, lses[w], mask=valid)
        tl.store(terms.delta + term, delta, mask=valid)
        tl.store(terms.factor + term, factors[w], mask=valid)
        tl.store(terms.masked + term, factors[w] * us[w], mask=valid)
        for j in tl.static_range(len(WINDOW_OF)):
            if WINDOW_OF[j] == w:
                tl.store(dalpha + ((block * B + b) * P + j) * H + h, tl.sum(delta, 0))
        deltas += (delta,)

    dq0 = tl.zeros((ROWS, D0), tl.float32)
    dq1 = tl.zeros((ROWS, D1 if D1 > 0 else 1), tl.float32)
    if WHOLE:
        for first in range(0, far, KEYS):
            keys, exist = far_keys(first, far, begin, end, KEYS)
            s, slope, k0, k1 = _visit_keys(q0, q1, g0, g1, k, v, k_start, v_start, keys, exist, scale, D, D0, D1)
            p = tl.exp2(s - lses[0][:, None])
            d_logits = factors[0][:, None] * p * (slope - deltas[0][:, None])
            dq0, dq1 = add_product(dq0, dq1, d_logits, k0, k1, D1)
    for first in range(begin, end, KEYS):
        keys = first + tl.arange(0, KEYS)
        exist = keys < end
        s, slope, k0, k1 = _visit_keys(q0, q1, g0, g1, k, v, k_start, v_start, keys, exist, scale, D, D0, D1)
        rings = patch_distance(patches[:, None], keys[None, :], gw)
        d_logits = tl.zeros((ROWS, KEYS), tl.float32)
        for w in tl.static_range(len(REACHES)):
            p = tl.where(rings <= REACHES[w], factors[w][:, None] * tl.exp2(s - lses[w][:, None]), 0.0)
            d_logits += p * (slope - deltas[w][:, None])
        dq0, dq1 = add_product(dq0, dq1, d_logits, k0, k1, D1)
    dq_start = offset(dq, b, 0, h)
    store_pair(dq, dq_start, rows, valid, dq0 * logit_scale, dq1 * logit_scale, D, D0, D1)


def shared_row_blocks(q: Tensor, k: Tensor) -> int:
    """Blocks of rows of one study and head: the shares of dalpha and of dv to be added up."""
    return row_blocks(q.shape[1], k.shape[1], config_for("shared_backward_queries", q.dtype, q.shape[4]).rows)


def shared_backward_queries_launch(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    value_sum: Tensor,
    alpha: Tensor,
    lse: Tensor,
    dq: Tensor,
    terms: RowTerms,
    dalpha: Tensor,
    shares: Tensor,
    spec: MaskSpec,
) -> Launch:
    """The launch; terms of each window (B, windows, H, N).

    Shares of every block of rows: dalpha (blocks, B, P, H), and of dv for all keys (blocks, B, H, D).
    """
    dim = q.shape[4]
    config = config_for("shared_backward_queries", q.dtype, dim)
    return Launch(
        shared_backward_queries_kernel,
        q.shape[0] * q.shape[3] * shared_row_blocks(q, k),
        {
            **operands(q, k, v, alpha, spec),
            "alpha": alpha,
            "grad": output_view(grad),
            "value_sum": value_sum,
            "lse": lse,
            "dq": projection_view(dq),
            "terms": terms,
            "dalpha": dalpha,
            "shares": shares,
            "B": q.shape[0],
            "logit_scale": spec.scale,
        },
        {**shared_constants(dim, spec), "ROWS": config.rows, "KEYS": config.keys},
        config.warps,
        config.stages,
    )

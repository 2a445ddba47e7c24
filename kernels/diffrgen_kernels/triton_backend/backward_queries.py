"""Gradients of Eq. 5 on the query side: dq, what the key side needs of every row, and shares of dalpha.

With W, n, s and lse as in own_forward.py, p = e^(s - lse), u = e^-lse where n > 0 (u = 0 with exclusive masks), t = g . v:

    Z = sum_W p + n u ;   delta = ( sum_W (p - u) t + u g . sum_all v ) / Z ;   dalpha_j = sum of delta over heads and rows
    dq = alpha scale ( sum_W p t k - delta sum_W p k ) / Z

Z is 1 but for the rounding of lse, which counts where logits are large. delta is known only after the last key, so both
sums are kept; t is taken relative to its running mean over the keys so far, which leaves little to cancel when the terms are
rounded to 16 bits.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import triton
import triton.language as tl
from torch import Tensor

from diffrgen_kernels.contract import MaskSpec
from diffrgen_kernels.triton_backend.configs import config_for
from diffrgen_kernels.triton_backend.geometry import element_of, outside_count, rows_of_block, window_mask, window_run
from diffrgen_kernels.triton_backend.large import operands
from diffrgen_kernels.triton_backend.launch import Launch, output_view, projection_view
from diffrgen_kernels.triton_backend.plan import mask_kinds, row_blocks
from diffrgen_kernels.triton_backend.tiles import dot_pairs, load_pair, load_rows, load_vector, offset, store_pair


class RowTerms(NamedTuple):
    """What the key side needs of every row and mask, float32, (B, P, H, N) each."""

    lse: Any  # base 2
    delta: Any
    factor: Any  # alpha / Z
    masked: Any  # alpha u / Z, the weight of a masked key; only for windows of multiplicative masks


@triton.jit
def _mean(slopes, total):
    """slopes / total, and 0 before the first key."""
    return slopes / tl.where(total > 0, total, 1.0)


@triton.jit
def _visit_keys(
    q0, q1, g0, g1, k, v, k_start, v_start, first, end, patches, order, gw, lse,
    total, slopes, outside_slope, high0, high1, low0, low1, scale,
    EXCLUSIVE: tl.constexpr, D: tl.constexpr, D0: tl.constexpr, D1: tl.constexpr, KEYS: tl.constexpr,
    FULL: tl.constexpr, EVEN: tl.constexpr,
):  # fmt: skip
    """Add the keys first .. first + KEYS - 1 to the sums over the window of every row.

    total: sum p. slopes: sum p t. outside_slope: sum t, over the other keys. high: sum p (t - slopes / total) k. low: sum p k.
    """
    keys = first + tl.arange(0, KEYS)
    valid = keys < end
    k0, k1 = load_pair(k, k_start, keys, valid, D, D0, D1)
    s = dot_pairs(q0, q1, k0, k1, D1)
    v0, v1 = load_pair(v, v_start, keys, valid, D, D0, D1)
    slope = dot_pairs(g0, g1, v0, v1, D1)
    p = tl.exp2(tl.fma(s, scale, -lse[:, None]))  # (ROWS, KEYS)
    if not FULL:
        inside = window_mask(patches, keys, valid, order, gw)
        p = tl.where(inside, p, 0.0)
        if not EXCLUSIVE:
            outside_slope -= tl.sum(tl.where(inside, slope, 0.0), 1)
    elif not EVEN:
        p = tl.where(valid[None, :], p, 0.0)
    product = p * slope
    old_mean = _mean(slopes, total)
    total += tl.sum(p, 1)
    slopes += tl.sum(product, 1)
    mean = _mean(slopes, total)
    change = (old_mean - mean)[:, None]
    narrow = p.to(k0.dtype)
    product = (product - p * mean[:, None]).to(k0.dtype)
    high0 += low0 * change
    low0 = tl.dot(narrow, k0, low0, input_precision="ieee")
    high0 = tl.dot(product, k0, high0, input_precision="ieee")
    if D1 > 0:
        high1 += low1 * change
        low1 = tl.dot(narrow, k1, low1, input_precision="ieee")
        high1 = tl.dot(product, k1, high1, input_precision="ieee")
    return total, slopes, outside_slope, high0, high1, low0, low1


@triton.jit
def _slope_of_all(g0, g1, sums, D: tl.constexpr, D0: tl.constexpr, D1: tl.constexpr):
    """g . sum_all v of every row."""
    slope = tl.sum(g0.to(tl.float32) * load_vector(sums, 0, D0, D)[None, :], 1)
    if D1 > 0:
        slope += tl.sum(g1.to(tl.float32) * load_vector(sums, D0, D1, D)[None, :], 1)
    return slope


@triton.jit
def _store_share(grad, start, rows, valid, masked, share, D: tl.constexpr, FROM: tl.constexpr, WIDTH: tl.constexpr):
    """Store WIDTH elements of sum_rows masked g."""
    dims = FROM + tl.arange(0, WIDTH)
    wide = load_rows(grad, start, rows, valid, D, FROM, WIDTH).to(tl.float32)
    tl.store(share + dims, tl.sum(wide * masked[:, None], 0), mask=dims < D)


@triton.jit
def backward_queries_kernel(
    grad, q, k, v, value_sum, alpha, lse, dq, terms, dalpha, rest, B, N, M, P, H, gh, gw: tl.constexpr, scale, logit_scale,
    MASKS: tl.constexpr, ORDERS: tl.constexpr, EXCLUSIVE: tl.constexpr, FULL: tl.constexpr,
    D: tl.constexpr, D0: tl.constexpr, D1: tl.constexpr, ROWS: tl.constexpr, KEYS: tl.constexpr, EVEN: tl.constexpr,
):  # fmt: skip
    """Program: one block of rows of one study and head, for one of MASKS, which are all full or none."""
    blocks = tl.cdiv(N, M) * tl.cdiv(tl.minimum(N, M), ROWS)
    block, task = tl.program_id(0) % blocks, tl.program_id(0) // blocks
    h, b = task % H, task // H // len(MASKS)
    j = element_of(MASKS, task // H % len(MASKS))
    first_patch, patches, rows, valid = rows_of_block(block, N, M, ROWS)
    k_start, v_start, grad_start = offset(k, b, j, h), offset(v, b, j, h), offset(grad, b, 0, h)
    q0, q1 = load_pair(q, offset(q, b, j, h), rows, valid, D, D0, D1)
    g0, g1 = load_pair(grad, grad_start, rows, valid, D, D0, D1)
    # a row that does not exist has e^(s - lse) = 0
    lse_rows = tl.load(lse + ((b * N + rows).to(tl.int64) * P + j) * H + h, mask=valid, other=float("inf"))
    begin, end, order = 0, M, 0
    if not FULL:
        order = element_of(ORDERS, j)
        begin, end = window_run(first_patch, order, M, gh, gw, ROWS)
    outside_slope = tl.zeros((ROWS,), tl.float32)
    if not FULL and not EXCLUSIVE:
        outside_slope = _slope_of_all(g0, g1, value_sum + ((b * P + j) * H + h) * D, D, D0, D1)
    total, slopes = tl.zeros((ROWS,), tl.float32), tl.zeros((ROWS,), tl.float32)
    high0, low0 = tl.zeros((ROWS, D0), tl.float32), tl.zeros((ROWS, D0), tl.float32)
    high1 = tl.zeros((ROWS, D1 if D1 > 0 else 1), tl.float32)
    low1 = tl.zeros_like(high1)
    for first in range(begin, end, KEYS):
        total, slopes, outside_slope, high0, high1, low0, low1 = _visit_keys(
            q0, q1, g0, g1, k, v, k_start, v_start, first, end, patches, order, gw, lse_rows,
            total, slopes, outside_slope, high0, high1, low0, low1, scale, EXCLUSIVE, D, D0, D1, KEYS, FULL, EVEN,
        )  # fmt: skip
    mean, u = _mean(slopes, total), tl.zeros((ROWS,), tl.float32)
    if not FULL and not EXCLUSIVE:
        outside = outside_count(patches, order, gh, gw)
        u = tl.where(outside > 0, tl.exp2(-lse_rows), 0.0)
        total += outside * u
        slopes += u * outside_slope
    total = tl.where(valid, total, 1.0)
    delta = slopes / total
    factor = tl.load(alpha + b * P + j) / total
    left, step = (mean - delta)[:, None], (factor * logit_scale)[:, None]
    high0 = (high0 + low0 * left) * step
    high1 = (high1 + low1 * left) * step
    store_pair(dq, offset(dq, b, j, h), rows, valid, high0, high1, D, D0, D1)
    row_start = ((b * P + j) * H + h).to(tl.int64) * N
    tl.store(terms.lse + row_start + rows, lse_rows, mask=valid)
    tl.store(terms.delta + row_start + rows, delta, mask=valid)
    tl.store(terms.factor + row_start + rows, factor, mask=valid)
    tl.store(dalpha + ((block * B + b) * P + j) * H + h, tl.sum(delta, 0))
    if not FULL and not EXCLUSIVE:
        # last, when the registers of dq are free again
        masked = factor * u
        tl.store(terms.masked + row_start + rows, masked, mask=valid)
        share = rest + (block * (tl.num_programs(0) // blocks) + task).to(tl.int64) * D
        _store_share(grad, grad_start, rows, valid, masked, share, D, 0, D0)
        if D1 > 0:
            _store_share(grad, grad_start, rows, valid, masked, share, D, D0, D1)


def row_blocks_of(q: Tensor, k: Tensor) -> int:
    """Blocks of rows of one study and head: the shares of dalpha and of dv to be added up."""
    return row_blocks(q.shape[1], k.shape[1], config_for("backward_queries", q.dtype, q.shape[4]).rows)


def backward_queries_launches(
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
    rest: Tensor,
    spec: MaskSpec,
) -> list[Launch]:
    """The launches. Shares for every block of rows: dalpha (blocks, B, P, H), rest (blocks, B, windowed masks, H, D)."""
    dim = q.shape[4]
    config = config_for("backward_queries", q.dtype, dim)
    arguments = {
        **operands(q, k, v, alpha, spec),
        "alpha": alpha,
        "grad": output_view(grad),
        "value_sum": value_sum,
        "lse": lse,
        "dq": projection_view(dq),
        "terms": terms,
        "dalpha": dalpha,
        "rest": rest,
        "B": q.shape[0],
        "logit_scale": spec.scale,
    }
    return [
        Launch(
            backward_queries_kernel,
            q.shape[0] * len(kind["MASKS"]) * q.shape[3] * row_blocks_of(q, k),
            arguments,
            {**kind, "ROWS": config.rows, "KEYS": config.keys, "EVEN": k.shape[1] % config.keys == 0},
            config.warps,
            config.stages,
        )
        for kind in mask_kinds(dim, spec)
    ]

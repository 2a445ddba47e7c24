"""Forward of Eq. 5 for own projections per mask: one program a block of rows of one study and head, all masks in turn.

With the exact shortcut: s = scale q.k, W the window of a row, n = M - |W| masked keys, M0 = max(0, max_W s), c = e^-M0,

    L = sum_W e^(s - M0) + n c ;   O_j = ( sum_W (e^(s - M0) - c) v + c sum_all v ) / L ;   out = sum_j alpha_j O_j

Where n = 0, and with exclusive masks, M0 = max_W s and c = 0. Exponentials are powers of two: s carries a factor log2(e), and
the saved lse is M0 + log2 L.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from diffrgen_kernels.contract import MaskSpec
from diffrgen_kernels.triton_backend.geometry import element_of, outside_count, rows_of_block, window_mask, window_run
from diffrgen_kernels.triton_backend.large import forward_launch, sum_over_keys
from diffrgen_kernels.triton_backend.launch import empty_results
from diffrgen_kernels.triton_backend.plan import constants
from diffrgen_kernels.triton_backend.tiles import (
    add_product,
    add_vector,
    advance,
    dot_pairs,
    load_pair,
    offset,
    store_pair,
)


@triton.jit
def _attend_tile(
    q0, q1, k, v, k_start, v_start, first, end, patches, order, gw, floored, top, total, acc0, acc1, scale,
    D: tl.constexpr, D0: tl.constexpr, D1: tl.constexpr, KEYS: tl.constexpr, FULL: tl.constexpr,
):  # fmt: skip
    """Bring the keys first .. first + KEYS - 1 into the running maximum, sum and values of every row."""
    keys = first + tl.arange(0, KEYS)
    valid = keys < end
    k0, k1 = load_pair(k, k_start, keys, valid, D, D0, D1)
    s = dot_pairs(q0, q1, k0, k1, D1)
    inside = valid[None, :]
    if not FULL:
        inside = window_mask(patches, keys, valid, order, gw)
    s = tl.where(inside, s * scale, float("-inf"))  # (ROWS, KEYS)
    top, total, weight, keep = advance(s, top, total)
    if not FULL:
        # c = e^-M0 for the running M0, so that it shrinks with the sums when M0 grows
        c = tl.where(floored, tl.exp2(-top), 0.0)
        weight = tl.where(inside, weight - c[:, None], 0.0)
    v0, v1 = load_pair(v, v_start, keys, valid, D, D0, D1)
    acc0, acc1 = add_product(acc0 * keep[:, None], acc1 * keep[:, None], weight, v0, v1, D1)
    return top, total, acc0, acc1


@triton.jit
def _attend_mask(
    q, k, v, value_sum, alpha, lse, b, h, j, order, first_patch, patches, rows, valid, out0, out1,
    N, M, P, H, gh, gw, scale,
    EXCLUSIVE: tl.constexpr, SAVE_LSE: tl.constexpr, D: tl.constexpr, D0: tl.constexpr, D1: tl.constexpr,
    ROWS: tl.constexpr, KEYS: tl.constexpr, FULL: tl.constexpr,
):  # fmt: skip
    """out + alpha_j O_j for a block of rows."""
    k_start, v_start = offset(k, b, j, h), offset(v, b, j, h)
    q0, q1 = load_pair(q, offset(q, b, j, h), rows, valid, D, D0, D1)
    begin, end, outside = 0, M, tl.zeros((ROWS,), tl.int32)
    if not FULL:
        begin, end = window_run(first_patch, order, M, gh, gw, ROWS)
        if not EXCLUSIVE:
            outside = outside_count(patches, order, gh, gw)
    floored = outside > 0
    top = tl.where(floored, 0.0, float("-inf"))  # the running M0
    total = tl.zeros((ROWS,), tl.float32)
    acc0, acc1 = tl.zeros_like(out0), tl.zeros_like(out1)
    for first in range(begin, end, KEYS):
        top, total, acc0, acc1 = _attend_tile(
            q0, q1, k, v, k_start, v_start, first, end, patches, order, gw, floored, top, total, acc0, acc1, scale,
            D, D0, D1, KEYS, FULL,
        )  # fmt: skip
    c = tl.where(floored, tl.exp2(-top), 0.0)
    total += outside * c
    total = tl.where(valid, total, 1.0)
    weight = tl.load(alpha + b * P + j) / total  # (ROWS,)
    out0 += acc0 * weight[:, None]
    if D1 > 0:
        out1 += acc1 * weight[:, None]
    if not FULL and not EXCLUSIVE:
        out0, out1 = add_vector(out0, out1, weight * c, value_sum + ((b * P + j) * H + h) * D, D, D0, D1)
    if SAVE_LSE:
        tl.store(lse + ((b * N + rows).to(tl.int64) * P + j) * H + h, top + tl.log2(total), mask=valid)
    return out0, out1


@triton.jit
def forward_kernel(
    q, k, v, value_sum, alpha, out, lse, N, M, P, H, gh, gw: tl.constexpr, scale,
    FULL_MASKS: tl.constexpr, WINDOW_MASKS: tl.constexpr, ORDERS: tl.constexpr, EXCLUSIVE: tl.constexpr,
    SAVE_LSE: tl.constexpr, D: tl.constexpr, D0: tl.constexpr, D1: tl.constexpr,
    ROWS: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    """Program: one block of rows of one study and head. Without lse a mask with alpha = 0 is not run."""
    blocks = tl.cdiv(N, M) * tl.cdiv(tl.minimum(N, M), ROWS)
    b, h = tl.program_id(0) // blocks // H, tl.program_id(0) // blocks % H
    first_patch, patches, rows, valid = rows_of_block(tl.program_id(0) % blocks, N, M, ROWS)
    out0 = tl.zeros((ROWS, D0), tl.float32)
    out1 = tl.zeros((ROWS, D1 if D1 > 0 else 1), tl.float32)
    if len(FULL_MASKS) > 0:
        for i in range(len(FULL_MASKS)):
            j = element_of(FULL_MASKS, i)
            if SAVE_LSE or tl.load(alpha + b * P + j) != 0:
                out0, out1 = _attend_mask(
                    q, k, v, value_sum, alpha, lse, b, h, j, 0, first_patch, patches, rows, valid, out0, out1,
                    N, M, P, H, gh, gw, scale, EXCLUSIVE, SAVE_LSE, D, D0, D1, ROWS, KEYS, True,
                )  # fmt: skip
    if len(WINDOW_MASKS) > 0:
        for i in range(len(WINDOW_MASKS)):
            j = element_of(WINDOW_MASKS, i)
            if SAVE_LSE or tl.load(alpha + b * P + j) != 0:
                out0, out1 = _attend_mask(
                    q, k, v, value_sum, alpha, lse, b, h, j, element_of(ORDERS, j), first_patch, patches, rows, valid,
                    out0, out1, N, M, P, H, gh, gw, scale, EXCLUSIVE, SAVE_LSE, D, D0, D1, ROWS, KEYS, False,
                )  # fmt: skip
    store_pair(out, offset(out, b, 0, h), rows, valid, out0, out1, D, D0, D1)


def forward(
    q: Tensor, k: Tensor, v: Tensor, alpha: Tensor, spec: MaskSpec, *, needs_grad: bool
) -> tuple[Tensor, Tensor]:
    """out (B, N, H, D), and lse (B, N, P, H) in powers of two if `needs_grad`, else (0,)."""
    fixed = constants(q.shape[4], spec)
    floored = bool(fixed["WINDOW_MASKS"]) and not spec.exclusive
    out, lse = empty_results(q, alpha, needs_grad=needs_grad)
    forward_launch("forward", forward_kernel, fixed, q, k, v, sum_over_keys(v, floored), alpha, out, lse, spec).run()
    return out, lse

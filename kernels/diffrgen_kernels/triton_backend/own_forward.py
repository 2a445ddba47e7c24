"""Forward of Eq. 5 for own projections per mask: one program a block of rows of one study and head, all masks in turn.

With the exact shortcut: s = scale q.k, W the window of a row, n = M - |W| masked keys, M0 = max(0, max_W s), c = e^-M0,

    L = sum_W e^(s - M0) + n c ;   O_j = ( sum_W (e^(s - M0) - c) v + c sum_all v ) / L ;   out = sum_j alpha_j O_j

Where n = 0, and with exclusive masks, M0 = max_W s and c = 0. Exponentials are powers of two: s carries a factor log2(e), and
the saved lse is M0 + log2 L.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from diffrgen_kernels.contract import Routing
from diffrgen_kernels.triton_backend.configs import config_for
from diffrgen_kernels.triton_backend.geometry import element_of, is_inside, outside_count, rows_of_block, window_run
from diffrgen_kernels.triton_backend.launch import Launch, output_view, projection_view
from diffrgen_kernels.triton_backend.plan import constants, row_blocks, sizes
from diffrgen_kernels.triton_backend.tiles import load_rows, offset, store_rows


@triton.jit
def _attend_tile(
    q0, q1, k, v, k_start, v_start, first, end, patches, order, gw, floored, top, total, acc0, acc1, scale,
    D: tl.constexpr, D0: tl.constexpr, D1: tl.constexpr, KEYS: tl.constexpr, FULL: tl.constexpr,
):  # fmt: skip
    """Bring the keys first .. first + KEYS - 1 into the running maximum, sum and values of every row."""
    keys = first + tl.arange(0, KEYS)
    valid = keys < end
    s = tl.dot(q0, load_rows(k, k_start, keys, valid, D, 0, D0).T, input_precision="ieee")
    if D1 > 0:
        s = tl.dot(q1, load_rows(k, k_start, keys, valid, D, D0, D1).T, s, input_precision="ieee")
    inside = valid[None, :]
    if not FULL:
        inside = inside & is_inside(patches[:, None], keys[None, :], order, gw)
    s = tl.where(inside, s * scale, float("-inf"))  # (ROWS, KEYS)
    new_top = tl.maximum(top, tl.max(s, 1))
    shift = tl.where(new_top == float("-inf"), 0.0, new_top)  # -inf: no key of the window yet
    weight = tl.exp2(s - shift[:, None])
    keep = tl.exp2(top - shift)
    total = total * keep + tl.sum(weight, 1)
    if not FULL:
        # c = e^-M0 for the running M0, so that it shrinks with the sums when M0 grows
        c = tl.where(floored, tl.exp2(-shift), 0.0)
        weight = tl.where(inside, weight - c[:, None], 0.0)
    narrow = weight.to(v.data.dtype.element_ty)
    values = load_rows(v, v_start, keys, valid, D, 0, D0)
    acc0 = tl.dot(narrow, values, acc0 * keep[:, None], input_precision="ieee")
    if D1 > 0:
        values = load_rows(v, v_start, keys, valid, D, D0, D1)
        acc1 = tl.dot(narrow, values, acc1 * keep[:, None], input_precision="ieee")
    return new_top, total, acc0, acc1


@triton.jit
def _attend_mask(
    q, k, v, value_sum, alpha, lse, b, h, j, order, first_patch, patches, rows, valid, out0, out1,
    N, M, P, H, gh, gw, scale,
    EXCLUSIVE: tl.constexpr, SAVE_LSE: tl.constexpr, D: tl.constexpr, D0: tl.constexpr, D1: tl.constexpr,
    ROWS: tl.constexpr, KEYS: tl.constexpr, FULL: tl.constexpr,
):  # fmt: skip
    """out + alpha_j O_j for a block of rows."""
    q_start, k_start, v_start = offset(q, b, j, h), offset(k, b, j, h), offset(v, b, j, h)
    q0 = load_rows(q, q_start, rows, valid, D, 0, D0)
    q1 = q0
    if D1 > 0:
        q1 = load_rows(q, q_start, rows, valid, D, D0, D1)
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
        sums = value_sum + ((b * P + j) * H + h) * D
        dims = tl.arange(0, D0)
        out0 += (weight * c)[:, None] * tl.load(sums + dims, mask=dims < D, other=0.0)[None, :]
        if D1 > 0:
            dims = D0 + tl.arange(0, D1)
            out1 += (weight * c)[:, None] * tl.load(sums + dims, mask=dims < D, other=0.0)[None, :]
    if SAVE_LSE:
        tl.store(lse + ((b * N + rows).to(tl.int64) * P + j) * H + h, top + tl.log2(total), mask=valid)
    return out0, out1


@triton.jit
def forward_kernel(
    q, k, v, value_sum, alpha, out, lse, N, M, P, H, gh, gw, scale,
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
    out_start = offset(out, b, 0, h)
    store_rows(out, out_start, rows, valid, out0, D, 0, D0)
    if D1 > 0:
        store_rows(out, out_start, rows, valid, out1, D, D0, D1)


def forward_launch(
    q: Tensor, k: Tensor, v: Tensor, value_sum: Tensor, alpha: Tensor, out: Tensor, lse: Tensor, routing: Routing
) -> Launch:
    """The launch for q, k, v as in the operator; value_sum (B, P, H, D) float32 is sum_l v; lse (B, N, P, H) or empty."""
    batch, rows, _, heads, dim = q.shape
    config = config_for("forward", q.dtype, dim)
    return Launch(
        forward_kernel,
        batch * heads * row_blocks(rows, k.shape[1], config.rows),
        {
            "q": projection_view(q),
            "k": projection_view(k),
            "v": projection_view(v),
            "value_sum": value_sum,
            "alpha": alpha,
            "out": output_view(out),
            "lse": lse,
            **sizes(q, k, alpha, routing),
        },
        {
            **constants(dim, routing),
            "SAVE_LSE": lse.numel() > 0,
            "ROWS": config.rows,
            "KEYS": config.keys,
        },
        config.warps,
        config.stages,
    )


def forward(
    q: Tensor, k: Tensor, v: Tensor, alpha: Tensor, routing: Routing, *, needs_grad: bool
) -> tuple[Tensor, Tensor]:
    """out (B, N, H, D), and lse (B, N, P, H) in powers of two if `needs_grad`, else (0,)."""
    batch, rows, masks, heads, dim = q.shape
    out = q.new_empty(batch, rows, heads, dim)
    lse = alpha.new_empty((batch, rows, masks, heads) if needs_grad else 0)
    value_sum = v.sum(1, dtype=torch.float32).contiguous()  # (B, P, H, D)
    forward_launch(q, k, v, value_sum, alpha.contiguous(), out, lse, routing).run()
    return out, lse

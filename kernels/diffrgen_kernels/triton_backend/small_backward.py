"""Backward of Eq. 5 for small shapes, in one launch and one sum over heads.

With p = softmax_l(s) and dp = g.v,

    delta = sum_l p dp ;   dalpha_j = sum over heads and rows of delta ;   dS = p (dp - delta) in the window, 0 outside
    dq = alpha_j scale dS k ;   dk = alpha_j scale dS^T q ;   dv = alpha_j p^T g
"""

import triton
import triton.language as tl
from torch import Tensor

from diffrgen_kernels.contract import MaskSpec
from diffrgen_kernels.triton_backend.geometry import element_of
from diffrgen_kernels.triton_backend.launch import output_view
from diffrgen_kernels.triton_backend.small import masked_softmax, small_block, small_launch
from diffrgen_kernels.triton_backend.tiles import dot_pairs, load_pair, logits, offset


@triton.jit
def _differentiate(s, dp, inside, EXCLUSIVE: tl.constexpr):
    """p, dS and delta of one mask."""
    weights, total, _ = masked_softmax(s, inside, EXCLUSIVE)
    weights *= (1.0 / total)[:, None]
    # a row that does not exist has g = 0: delta, dS and its share of dv are 0
    delta = tl.sum(weights * dp, 1)
    return weights, tl.where(inside, weights * (dp - delta[:, None]), 0.0), delta


@triton.jit
def _store_gradient(
    x, b, j, h, rows, count, masks, H, weights, y0, y1, factor, D: tl.constexpr, D0: tl.constexpr, D1: tl.constexpr
):
    """factor * weights y to x, contiguous (B, count, masks, H, D), a tile at a time."""
    # one row stride for all three gradients: their addresses share registers
    stride = tl.cast(masks * H, tl.int64) * D
    pointers = x + b * count * stride + (j * H + h) * D + rows[:, None] * stride
    valid = (rows < count)[:, None]
    dims = tl.arange(0, D0)[None, :]
    product = tl.dot(weights, y0, input_precision="ieee") * factor
    tl.store(pointers + dims, product.to(x.dtype.element_ty), mask=valid & (dims < D))
    if D1 > 0:
        dims = D0 + tl.arange(0, D1)[None, :]
        product = tl.dot(weights, y1, input_precision="ieee") * factor
        tl.store(pointers + dims, product.to(x.dtype.element_ty), mask=valid & (dims < D))


@triton.jit
def small_backward_kernel(
    q, k, v, alpha, grad, dq, dk, dv, alpha_sums, N, P, H, scale, grad_scale,
    M: tl.constexpr, GW: tl.constexpr, ORDERS: tl.constexpr, EXCLUSIVE: tl.constexpr, STAGES: tl.constexpr,
    D: tl.constexpr, D0: tl.constexpr, D1: tl.constexpr, ROWS: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    """Program: one study and head, own projections: each mask writes its gradients and its share of dalpha."""
    b, h = tl.program_id(0) // H, tl.program_id(0) % H
    rows, keys, real_rows, real_keys, distance = small_block(N, M, GW, ROWS, KEYS)
    g0, g1 = load_pair(grad, offset(grad, b, 0, h), rows, real_rows, D, D0, D1)
    for j in tl.range(P, num_stages=STAGES):
        weight = tl.load(alpha.data + offset(alpha, b, j, 0))
        q0, q1 = load_pair(q, offset(q, b, j, h), rows, real_rows, D, D0, D1)
        k0, k1 = load_pair(k, offset(k, b, j, h), keys, real_keys, D, D0, D1)
        v0, v1 = load_pair(v, offset(v, b, j, h), keys, real_keys, D, D0, D1)
        s = logits(q0, q1, k0, k1, real_keys, scale, D1)
        dp = dot_pairs(g0, g1, v0, v1, D1)
        weights, ds, delta = _differentiate(s, dp, distance <= element_of(ORDERS, j), EXCLUSIVE)
        weights, ds = weights.to(q0.dtype), ds.to(q0.dtype)
        _store_gradient(dv, b, j, h, keys, M, P, H, weights.T, g0, g1, weight, D, D0, D1)
        _store_gradient(dq, b, j, h, rows, N, P, H, ds, k0, k1, weight * grad_scale, D, D0, D1)
        _store_gradient(dk, b, j, h, keys, M, P, H, ds.T, q0, q1, weight * grad_scale, D, D0, D1)
        tl.store(alpha_sums + tl.program_id(0) * P + j, tl.sum(delta, 0))


@triton.jit
def small_shared_backward_kernel(
    q, k, v, alpha, grad, dq, dk, dv, alpha_sums, N, P, H, scale, grad_scale,
    M: tl.constexpr, GW: tl.constexpr, ORDERS: tl.constexpr, EXCLUSIVE: tl.constexpr,
    D: tl.constexpr, D0: tl.constexpr, D1: tl.constexpr, ROWS: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    """Program: one study and head; the masks share the projections: their p and dS are summed before the products."""
    b, h = tl.program_id(0) // H, tl.program_id(0) % H
    rows, keys, real_rows, real_keys, distance = small_block(N, M, GW, ROWS, KEYS)
    q0, q1 = load_pair(q, offset(q, b, 0, h), rows, real_rows, D, D0, D1)
    k0, k1 = load_pair(k, offset(k, b, 0, h), keys, real_keys, D, D0, D1)
    v0, v1 = load_pair(v, offset(v, b, 0, h), keys, real_keys, D, D0, D1)
    g0, g1 = load_pair(grad, offset(grad, b, 0, h), rows, real_rows, D, D0, D1)
    s = logits(q0, q1, k0, k1, real_keys, scale, D1)
    dp = dot_pairs(g0, g1, v0, v1, D1)
    weights = tl.zeros((ROWS, KEYS), tl.float32)
    ds = tl.zeros((ROWS, KEYS), tl.float32)
    for j in range(P):
        weight = tl.load(alpha.data + offset(alpha, b, j, 0))
        weights_j, ds_j, delta = _differentiate(s, dp, distance <= element_of(ORDERS, j), EXCLUSIVE)
        weights += weight * weights_j
        ds += weight * ds_j
        tl.store(alpha_sums + tl.program_id(0) * P + j, tl.sum(delta, 0))
    weights_narrow, ds_narrow = weights.to(q0.dtype), ds.to(q0.dtype)
    _store_gradient(dv, b, 0, h, keys, M, 1, H, weights_narrow.T, g0, g1, 1.0, D, D0, D1)
    _store_gradient(dq, b, 0, h, rows, N, 1, H, ds_narrow, k0, k1, grad_scale, D, D0, D1)
    _store_gradient(dk, b, 0, h, keys, M, 1, H, ds_narrow.T, q0, q1, grad_scale, D, D0, D1)


def backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, alpha: Tensor, lse: Tensor, spec: MaskSpec
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Contiguous gradients of q, k, v, alpha. A row's maximum is found again sooner than its lse would be read."""
    dq, dk, dv = (x.new_empty(x.shape) for x in (q, k, v))
    # dalpha by head
    alpha_sums = alpha.new_empty(q.shape[0], q.shape[3], alpha.shape[1])
    others = {"grad": output_view(grad), "dq": dq, "dk": dk, "dv": dv, "alpha_sums": alpha_sums}
    small_launch(
        "small_backward",
        (small_backward_kernel, small_shared_backward_kernel),
        q, k, v, alpha, spec,
        {**others, "grad_scale": spec.scale},
        {},
    ).run()  # fmt: skip
    return dq, dk, dv, alpha_sums.sum(1)

"""Backward of Eq. 5 for small shapes, in one launch and one sum over heads.

With p = softmax_l(s) and dp = g.v,

    delta = sum_l p dp ;   dalpha_j = sum over heads and rows of delta ;   dS = p (dp - delta) in the window, 0 outside
    dq = alpha_j scale dS k ;   dk = alpha_j scale dS^T q ;   dv = alpha_j p^T g
"""

import triton
import triton.language as tl
from torch import Tensor

from ..geometry import element_of
from ..launch import output_view
from ..plan import Call
from ..tiles import dot_tiles, load_tiles, logits, offset
from .block import load_weight, masked_softmax, small_block, small_launch


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
    x, b, j, h, rows, count, masks, H, weights, y, factor, D: tl.constexpr, TILES: tl.constexpr
):  # fmt: skip
    """factor * weights y to x, contiguous (B, count, masks, H, D), a tile at a time."""
    # one row stride for all three gradients: their addresses share registers
    stride = tl.cast(masks * H, tl.int64) * D
    pointers = x + b * count * stride + (j * H + h) * D + rows[:, None] * stride
    for t in tl.static_range(len(TILES)):
        dims = t * TILES[0] + tl.arange(0, TILES[t])[None, :]
        product = tl.dot(weights, y[t], input_precision="ieee") * factor
        tl.store(pointers + dims, product.to(x.dtype.element_ty), mask=(rows < count)[:, None] & (dims < D))


@triton.jit
def small_backward_kernel(
    inputs, grad, dq, dk, dv, alpha_sums, shape,
    M: tl.constexpr, GW: tl.constexpr, ORDERS: tl.constexpr, EXCLUSIVE: tl.constexpr, STAGES: tl.constexpr,
    D: tl.constexpr, TILES: tl.constexpr, ROWS: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    """Program: one study and head, own projections: each mask writes its gradients and its share of dalpha."""
    b, h = tl.program_id(0) // shape.H, tl.program_id(0) % shape.H
    P, H = shape.P, shape.H
    rows, keys, real_rows, real_keys, distance = small_block(shape.N, M, GW, ROWS, KEYS)
    g = load_tiles(grad, offset(grad, b, 0, h), rows, real_rows, D, TILES)
    for j in tl.range(P, num_stages=STAGES):
        weight = load_weight(inputs.alpha, b, j)
        q = load_tiles(inputs.q, offset(inputs.q, b, j, h), rows, real_rows, D, TILES)
        k = load_tiles(inputs.k, offset(inputs.k, b, j, h), keys, real_keys, D, TILES)
        v = load_tiles(inputs.v, offset(inputs.v, b, j, h), keys, real_keys, D, TILES)
        s = logits(q, k, real_keys, shape.scale, TILES)
        dp = dot_tiles(g, v, TILES)
        weights, ds, delta = _differentiate(s, dp, distance <= element_of(ORDERS, j), EXCLUSIVE)
        weights, ds = weights.to(q[0].dtype), ds.to(q[0].dtype)
        factor = weight * shape.logit_scale
        _store_gradient(dv, b, j, h, keys, M, P, H, weights.T, g, weight, D, TILES)
        _store_gradient(dq, b, j, h, rows, shape.N, P, H, ds, k, factor, D, TILES)
        _store_gradient(dk, b, j, h, keys, M, P, H, ds.T, q, factor, D, TILES)
        tl.store(alpha_sums + tl.program_id(0) * P + j, tl.sum(delta, 0))


@triton.jit
def small_shared_backward_kernel(
    inputs, grad, dq, dk, dv, alpha_sums, shape,
    M: tl.constexpr, GW: tl.constexpr, ORDERS: tl.constexpr, EXCLUSIVE: tl.constexpr,
    D: tl.constexpr, TILES: tl.constexpr, ROWS: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    """Program: one study and head; the masks share the projections: their p and dS are summed before the products."""
    b, h = tl.program_id(0) // shape.H, tl.program_id(0) % shape.H
    rows, keys, real_rows, real_keys, distance = small_block(shape.N, M, GW, ROWS, KEYS)
    q = load_tiles(inputs.q, offset(inputs.q, b, 0, h), rows, real_rows, D, TILES)
    k = load_tiles(inputs.k, offset(inputs.k, b, 0, h), keys, real_keys, D, TILES)
    v = load_tiles(inputs.v, offset(inputs.v, b, 0, h), keys, real_keys, D, TILES)
    g = load_tiles(grad, offset(grad, b, 0, h), rows, real_rows, D, TILES)
    s = logits(q, k, real_keys, shape.scale, TILES)
    dp = dot_tiles(g, v, TILES)
    weights = tl.zeros((ROWS, KEYS), tl.float32)
    ds = tl.zeros((ROWS, KEYS), tl.float32)
    for j in range(shape.P):
        weight = load_weight(inputs.alpha, b, j)
        weights_j, ds_j, delta = _differentiate(s, dp, distance <= element_of(ORDERS, j), EXCLUSIVE)
        weights += weight * weights_j
        ds += weight * ds_j
        tl.store(alpha_sums + tl.program_id(0) * shape.P + j, tl.sum(delta, 0))
    weights, ds = weights.to(q[0].dtype), ds.to(q[0].dtype)
    _store_gradient(dv, b, 0, h, keys, M, 1, shape.H, weights.T, g, 1.0, D, TILES)
    _store_gradient(dq, b, 0, h, rows, shape.N, 1, shape.H, ds, k, shape.logit_scale, D, TILES)
    _store_gradient(dk, b, 0, h, keys, M, 1, shape.H, ds.T, q, shape.logit_scale, D, TILES)


def backward(call: Call, grad: Tensor, lse: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Contiguous gradients of q, k, v, alpha. A row's maximum is found again sooner than its lse would be read."""
    dq, dk, dv = call.new_gradients()
    # dalpha by head
    alpha_sums = call.alpha.new_empty(call.q.shape[0], call.q.shape[3], call.masks)
    arguments = {"grad": output_view(grad), "dq": dq, "dk": dk, "dv": dv, "alpha_sums": alpha_sums}
    small_launch("small_backward", (small_backward_kernel, small_shared_backward_kernel), call, arguments, {})
    return dq, dk, dv, alpha_sums.sum(1)

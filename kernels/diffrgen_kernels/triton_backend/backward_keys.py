"""Gradients of Eq. 5 on the key side: dk and dv of one mask for one block of keys, for own projections per mask.

With W, s, lse, u and Z as in backward_queries.py, and over the rows whose window W holds a key:

    p' = alpha / Z e^(s - lse) ;   dk = scale sum p' (g . v - delta) q ;   dv = sum ( p' - alpha u / Z ) g + sum_all alpha u / Z g

The rows that can hold a key are by symmetry those whose patches its own window holds, once in every cycle of M rows.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from diffrgen_kernels.contract import MaskSpec
from diffrgen_kernels.triton_backend.backward_queries import RowTerms
from diffrgen_kernels.triton_backend.configs import config_for
from diffrgen_kernels.triton_backend.geometry import element_of, window_mask, window_run
from diffrgen_kernels.triton_backend.large import operands
from diffrgen_kernels.triton_backend.launch import Launch, output_view, projection_view
from diffrgen_kernels.triton_backend.plan import mask_kinds
from diffrgen_kernels.triton_backend.tiles import dot_pairs, load_pair, load_vector, offset, store_pair


@triton.jit
def _visit_rows(
    k0, k1, v0, v1, q, grad, q_start, grad_start, terms, row_start, rows, valid, patches, keys, order, gw,
    dk0, dk1, dv0, dv1, scale,
    EXCLUSIVE: tl.constexpr, D: tl.constexpr, D0: tl.constexpr, D1: tl.constexpr, FULL: tl.constexpr,
):  # fmt: skip
    """Add a tile of rows to the sums of every key; a row that does not exist has p' = 0."""
    q0, q1 = load_pair(q, q_start, rows, valid, D, D0, D1)
    s = dot_pairs(k0, k1, q0, q1, D1)  # (KEYS, ROWS)
    g0, g1 = load_pair(grad, grad_start, rows, valid, D, D0, D1)
    slope = dot_pairs(v0, v1, g0, g1, D1)
    lse = tl.load(terms.lse + row_start + rows, mask=valid, other=float("inf"))
    factor = tl.load(terms.factor + row_start + rows, mask=valid, other=0.0)
    delta = tl.load(terms.delta + row_start + rows, mask=valid, other=0.0)
    p = tl.exp2(tl.fma(s, scale, -lse[None, :])) * factor[None, :]
    if not FULL:
        inside = window_mask(keys, patches, valid, order, gw)
        p = tl.where(inside, p, 0.0)
    d_logits = p * (slope - delta[None, :])
    if not FULL and not EXCLUSIVE:
        masked = tl.load(terms.masked + row_start + rows, mask=valid, other=0.0)
        p -= tl.where(inside, masked[None, :], 0.0)
    p = p.to(q0.dtype)
    d_logits = d_logits.to(q0.dtype)
    dv0 = tl.dot(p, g0, dv0, input_precision="ieee")
    dk0 = tl.dot(d_logits, q0, dk0, input_precision="ieee")
    if D1 > 0:
        dv1 = tl.dot(p, g1, dv1, input_precision="ieee")
        dk1 = tl.dot(d_logits, q1, dk1, input_precision="ieee")
    return dk0, dk1, dv0, dv1


@triton.jit
def backward_keys_kernel(
    grad, q, k, v, alpha, terms, rest, dk, dv, N, M, P, H, gh, gw: tl.constexpr, scale, logit_scale,
    MASKS: tl.constexpr, ORDERS: tl.constexpr, EXCLUSIVE: tl.constexpr, FULL: tl.constexpr,
    D: tl.constexpr, D0: tl.constexpr, D1: tl.constexpr, ROWS: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    """Program: one block of keys of one study and head, for one of MASKS, which are all full or none. alpha = 0 costs nothing."""
    blocks = tl.cdiv(M, KEYS)
    first, task = tl.program_id(0) % blocks * KEYS, tl.program_id(0) // blocks
    h, b = task % H, task // H // len(MASKS)
    j = element_of(MASKS, task // H % len(MASKS))
    keys = first + tl.arange(0, KEYS)
    exist = keys < M
    k0, k1 = load_pair(k, offset(k, b, j, h), keys, exist, D, D0, D1)
    v0, v1 = load_pair(v, offset(v, b, j, h), keys, exist, D, D0, D1)
    q_start, grad_start = offset(q, b, j, h), offset(grad, b, 0, h)
    row_start = ((b * P + j) * H + h).to(tl.int64) * N
    begin, end, cycles, order = 0, N, 1, 0
    if not FULL:
        order = element_of(ORDERS, j)
        begin, end = window_run(first, order, M, gh, gw, KEYS)
        end, cycles = tl.minimum(end, N), tl.cdiv(N, M)
    tiles = tl.maximum(tl.cdiv(end - begin, ROWS), 1)
    cycles = tl.where(tl.load(alpha + b * P + j) != 0, cycles, 0)
    dk0, dv0 = tl.zeros((KEYS, D0), tl.float32), tl.zeros((KEYS, D0), tl.float32)
    dk1 = tl.zeros((KEYS, D1 if D1 > 0 else 1), tl.float32)
    dv1 = tl.zeros_like(dk1)
    for tile in range(cycles * tiles):
        patches = begin + tile % tiles * ROWS + tl.arange(0, ROWS)
        rows = tile // tiles * M + patches
        valid = (patches < end) & (rows < N)
        dk0, dk1, dv0, dv1 = _visit_rows(
            k0, k1, v0, v1, q, grad, q_start, grad_start, terms, row_start, rows, valid, patches, keys, order, gw,
            dk0, dk1, dv0, dv1, scale, EXCLUSIVE, D, D0, D1, FULL,
        )  # fmt: skip
    if not FULL and not EXCLUSIVE:
        shares = rest + task.to(tl.int64) * D
        dv0 += load_vector(shares, 0, D0, D)[None, :]
        if D1 > 0:
            dv1 += load_vector(shares, D0, D1, D)[None, :]
    store_pair(dk, offset(dk, b, j, h), keys, exist, dk0 * logit_scale, dk1 * logit_scale, D, D0, D1)
    store_pair(dv, offset(dv, b, j, h), keys, exist, dv0, dv1, D, D0, D1)


def backward_keys_launches(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    alpha: Tensor,
    terms: RowTerms,
    rest: Tensor,
    dk: Tensor,
    dv: Tensor,
    spec: MaskSpec,
) -> list[Launch]:
    """The launches; rest (B, windowed masks, H, D) is what every key gets of dv besides."""
    dim = q.shape[4]
    config = config_for("backward_keys", q.dtype, dim)
    arguments = {
        **operands(q, k, v, alpha, spec),
        "alpha": alpha,
        "grad": output_view(grad),
        "terms": terms,
        "rest": rest,
        "dk": projection_view(dk),
        "dv": projection_view(dv),
        "logit_scale": spec.scale,
    }
    return [
        Launch(
            backward_keys_kernel,
            q.shape[0] * len(kind["MASKS"]) * q.shape[3] * triton.cdiv(k.shape[1], config.keys),
            arguments,
            {**kind, "ROWS": config.rows, "KEYS": config.keys},
            config.warps,
            config.stages,
        )
        for kind in mask_kinds(dim, spec)
    ]

"""Gradients of Eq. 5 on the key side for shared projections: dk and dv of one block of keys, all masks at once.

With ds of shared_backward_queries.py, and over the rows of which a window W_w holds a key:

    dk = scale sum_rows ds q ;   dv = sum_rows g sum_w alpha_w / Z_w (p_w - u_w)[l in W_w] + sum_all g sum_w alpha_w u_w / Z_w

Rows whose windows can hold a key ("near") are those of the patches round it, once in every cycle of M rows; the others
("far") are visited only where a mask is the whole grid, and for it alone.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from diffrgen_kernels.contract import MaskSpec
from diffrgen_kernels.triton_backend.backward_queries import RowTerms
from diffrgen_kernels.triton_backend.configs import config_for
from diffrgen_kernels.triton_backend.geometry import outside_run, patch_distance, window_run
from diffrgen_kernels.triton_backend.large import operands
from diffrgen_kernels.triton_backend.launch import Launch, output_view, projection_view
from diffrgen_kernels.triton_backend.plan import shared_constants
from diffrgen_kernels.triton_backend.tiles import add_product, dot_pairs, load_pair, load_vector, offset, store_pair


@triton.jit
def _visit_rows(
    k0, k1, v0, v1, q, grad, q_start, grad_start, terms, term_start, rows, valid, patches, keys, N, H, gh, gw,
    dk0, dk1, dv0, dv1, scale, REACHES: tl.constexpr, FLOORED: tl.constexpr,
    D: tl.constexpr, D0: tl.constexpr, D1: tl.constexpr, NEAR: tl.constexpr,
):  # fmt: skip
    """Add a tile of rows to the sums of every key: of all windows if NEAR, else of the first.

    A row that does not exist has p = 0.
    """
    q0, q1 = load_pair(q, q_start, rows, valid, D, D0, D1)
    g0, g1 = load_pair(grad, grad_start, rows, valid, D, D0, D1)
    s = scale * dot_pairs(k0, k1, q0, q1, D1)
    s = tl.where(valid[None, :], s, 0.0)  # (KEYS, ROWS); not to be fused, as in `logits`
    slope = dot_pairs(v0, v1, g0, g1, D1)
    weight, d_logits = tl.zeros_like(s), tl.zeros_like(s)
    if NEAR:
        rings = patch_distance(keys[:, None], patches[None, :], gw)
    for w in tl.static_range(len(REACHES) if NEAR else 1):
        window_start = term_start + w * H * N
        lse = tl.load(terms.lse + window_start + rows, mask=valid, other=float("inf"))
        factor = tl.load(terms.factor + window_start + rows, mask=valid, other=0.0)
        delta = tl.load(terms.delta + window_start + rows, mask=valid, other=0.0)
        p = factor[None, :] * tl.exp2(s - lse[None, :])
        if NEAR:
            p = tl.where(rings <= REACHES[w], p, 0.0)
        d_logits += p * (slope - delta[None, :])
        weight += p
        if NEAR and FLOORED:
            masked = tl.load(terms.masked + window_start + rows, mask=valid, other=0.0)
            weight -= tl.where(rings <= REACHES[w], masked[None, :], 0.0)
    dv0, dv1 = add_product(dv0, dv1, weight, g0, g1, D1)
    dk0, dk1 = add_product(dk0, dk1, d_logits, q0, q1, D1)
    return dk0, dk1, dv0, dv1


@triton.jit
def shared_backward_keys_kernel(
    grad, q, k, v, terms, rest, dk, dv, N, M, P, H, gh, gw: tl.constexpr, scale, logit_scale,
    REACHES: tl.constexpr, WINDOW_OF: tl.constexpr, WHOLE: tl.constexpr, FLOORED: tl.constexpr,
    D: tl.constexpr, D0: tl.constexpr, D1: tl.constexpr, ROWS: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    """Program: one block of keys of one study and head."""
    blocks = tl.cdiv(M, KEYS)
    first_key = tl.program_id(0) % blocks * KEYS
    b, h = tl.program_id(0) // blocks // H, tl.program_id(0) // blocks % H
    keys = first_key + tl.arange(0, KEYS)
    exist = keys < M
    k0, k1 = load_pair(k, offset(k, b, 0, h), keys, exist, D, D0, D1)
    v0, v1 = load_pair(v, offset(v, b, 0, h), keys, exist, D, D0, D1)
    q_start, grad_start = offset(q, b, 0, h), offset(grad, b, 0, h)
    term_start = (b * len(REACHES) * H + h).to(tl.int64) * N
    cycles, cycle = tl.cdiv(N, M), tl.minimum(N, M)  # cycles, and patches of one that have a row
    begin, end = 0, 0
    if len(REACHES) > WHOLE:
        begin, end = window_run(first_key, REACHES[WHOLE], M, gh, gw, KEYS)
        begin, end = tl.minimum(begin, cycle), tl.minimum(end, cycle)

    dk0, dv0 = tl.zeros((KEYS, D0), tl.float32), tl.zeros((KEYS, D0), tl.float32)
    dk1 = tl.zeros((KEYS, D1 if D1 > 0 else 1), tl.float32)
    dv1 = tl.zeros_like(dk1)
    near = tl.cdiv(end - begin, ROWS)
    for tile in range(cycles * near):
        patches = begin + tile % near * ROWS + tl.arange(0, ROWS)
        rows = tile // near * M + patches
        valid = (patches < end) & (rows < N)
        dk0, dk1, dv0, dv1 = _visit_rows(
            k0, k1, v0, v1, q, grad, q_start, grad_start, terms, term_start, rows, valid, patches, keys, N, H, gh, gw,
            dk0, dk1, dv0, dv1, scale, REACHES, FLOORED, D, D0, D1, True,
        )  # fmt: skip
    if WHOLE:
        others = cycle - (end - begin)
        far = tl.cdiv(others, ROWS)
        for tile in range(cycles * far):
            index = tile % far * ROWS + tl.arange(0, ROWS)
            patches = outside_run(index, begin, end)
            rows = tile // far * M + patches
            valid = (index < others) & (rows < N)
            dk0, dk1, dv0, dv1 = _visit_rows(
                k0, k1, v0, v1, q, grad, q_start, grad_start, terms, term_start, rows, valid, patches, keys, N, H, gh, gw,
                dk0, dk1, dv0, dv1, scale, REACHES, FLOORED, D, D0, D1, False,
            )  # fmt: skip
    if FLOORED:
        sums = rest + (b * H + h) * D
        dv0 += load_vector(sums, 0, D0, D)[None, :]
        if D1 > 0:
            dv1 += load_vector(sums, D0, D1, D)[None, :]
    store_pair(dk, offset(dk, b, 0, h), keys, exist, dk0 * logit_scale, dk1 * logit_scale, D, D0, D1)
    store_pair(dv, offset(dv, b, 0, h), keys, exist, dv0, dv1, D, D0, D1)


def shared_backward_keys_launch(
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
) -> Launch:
    """The launch; rest (B, H, D): the shares of dv for all keys, added up."""
    dim = q.shape[4]
    config = config_for("shared_backward_keys", q.dtype, dim)
    return Launch(
        shared_backward_keys_kernel,
        q.shape[0] * q.shape[3] * triton.cdiv(k.shape[1], config.keys),
        {
            **operands(q, k, v, alpha, spec),
            "grad": output_view(grad),
            "terms": terms,
            "rest": rest,
            "dk": projection_view(dk),
            "dv": projection_view(dv),
            "logit_scale": spec.scale,
        },
        {**shared_constants(dim, spec), "ROWS": config.rows, "KEYS": config.keys},
        config.warps,
        config.stages,
    )

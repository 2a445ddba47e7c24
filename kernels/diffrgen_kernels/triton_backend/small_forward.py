"""Forward of Eq. 5 for small shapes, in one launch.

    s = scale q.k in the window, 0 (exclusive: -inf) outside ;   out = sum_j alpha_j softmax_l(s) v

Exponentials are powers of two: s carries a factor log2(e), and the saved lse is M0 + log2 sum_l 2^(s - M0).
"""

import triton
import triton.language as tl
from torch import Tensor

from diffrgen_kernels.contract import MaskSpec
from diffrgen_kernels.triton_backend.geometry import element_of
from diffrgen_kernels.triton_backend.launch import empty_results, output_view
from diffrgen_kernels.triton_backend.small import masked_softmax, small_block, small_launch, store_product
from diffrgen_kernels.triton_backend.tiles import add_product, load_pair, logits, offset, store_pair


@triton.jit
def _store_lse(lse, b, h, j, rows, valid, top, total, N, P, H):
    tl.store(lse + ((b * N + rows).to(tl.int64) * P + j) * H + h, top + tl.log2(total), mask=valid)


@triton.jit
def small_forward_kernel(
    q, k, v, alpha, out, lse, N, P, H, scale,
    M: tl.constexpr, GW: tl.constexpr, ORDERS: tl.constexpr, EXCLUSIVE: tl.constexpr, SAVE_LSE: tl.constexpr,
    STAGES: tl.constexpr,
    D: tl.constexpr, D0: tl.constexpr, D1: tl.constexpr, ROWS: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    """Program: one study and head, own projections. Without lse a mask with alpha = 0 is neither read nor run."""
    b, h = tl.program_id(0) // H, tl.program_id(0) % H
    rows, keys, real_rows, real_keys, distance = small_block(N, M, GW, ROWS, KEYS)
    out0 = tl.zeros((ROWS, D0), tl.float32)
    out1 = tl.zeros((ROWS, D1 if D1 > 0 else 1), tl.float32)
    for j in tl.range(P, num_stages=STAGES):
        weight = tl.load(alpha.data + offset(alpha, b, j, 0))
        runs = SAVE_LSE or weight != 0
        last_row, last_key = tl.where(runs, N, 0), tl.where(runs, M, 0)
        q0, q1 = load_pair(q, offset(q, b, j, h), rows, rows < last_row, D, D0, D1)
        k0, k1 = load_pair(k, offset(k, b, j, h), keys, keys < last_key, D, D0, D1)
        v0, v1 = load_pair(v, offset(v, b, j, h), keys, keys < last_key, D, D0, D1)
        if runs:
            s = logits(q0, q1, k0, k1, real_keys, scale, D1)
            weights, total, top = masked_softmax(s, distance <= element_of(ORDERS, j), EXCLUSIVE)
            out0, out1 = add_product(out0, out1, weights * (weight / total)[:, None], v0, v1, D1)
            # last: between the products this store would keep float32's operands in registers
            if SAVE_LSE:
                _store_lse(lse, b, h, j, rows, real_rows, top, total, N, P, H)
    store_pair(out, offset(out, b, 0, h), rows, real_rows, out0, out1, D, D0, D1)


@triton.jit
def small_shared_forward_kernel(
    q, k, v, alpha, out, lse, N, P, H, scale,
    M: tl.constexpr, GW: tl.constexpr, ORDERS: tl.constexpr, EXCLUSIVE: tl.constexpr, SAVE_LSE: tl.constexpr,
    D: tl.constexpr, D0: tl.constexpr, D1: tl.constexpr, ROWS: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    """Program: one study and head; the masks share the projections, so their weights are summed before the product."""
    b, h = tl.program_id(0) // H, tl.program_id(0) % H
    rows, keys, real_rows, real_keys, distance = small_block(N, M, GW, ROWS, KEYS)
    q0, q1 = load_pair(q, offset(q, b, 0, h), rows, real_rows, D, D0, D1)
    k0, k1 = load_pair(k, offset(k, b, 0, h), keys, real_keys, D, D0, D1)
    v0, v1 = load_pair(v, offset(v, b, 0, h), keys, real_keys, D, D0, D1)
    s = logits(q0, q1, k0, k1, real_keys, scale, D1)
    weights = tl.zeros((ROWS, KEYS), tl.float32)
    for j in range(P):
        weight = tl.load(alpha.data + offset(alpha, b, j, 0))
        if SAVE_LSE or weight != 0:
            weights_j, total, top = masked_softmax(s, distance <= element_of(ORDERS, j), EXCLUSIVE)
            weights += weights_j * (weight / total)[:, None]
            if SAVE_LSE:
                _store_lse(lse, b, h, j, rows, real_rows, top, total, N, P, H)
    store_product(out, offset(out, b, 0, h), rows, real_rows, weights.to(v0.dtype), v0, v1, 1.0, D, D0, D1)


def forward(
    q: Tensor, k: Tensor, v: Tensor, alpha: Tensor, spec: MaskSpec, *, needs_grad: bool
) -> tuple[Tensor, Tensor]:
    """out (B, N, H, D), and lse (B, N, P, H) if `needs_grad`, else (0,)."""
    out, lse = empty_results(q, alpha, needs_grad=needs_grad)
    small_launch(
        "small_forward",
        (small_forward_kernel, small_shared_forward_kernel),
        q, k, v, alpha, spec,
        {"out": output_view(out), "lse": lse},
        {"SAVE_LSE": needs_grad},
    ).run()  # fmt: skip
    return out, lse

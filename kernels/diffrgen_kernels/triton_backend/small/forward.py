"""Forward of Eq. 5 for small shapes, in one launch.

    s = scale q.k in the window, 0 (exclusive: -inf) outside ;   out = sum_j alpha_j softmax_l(s) v

Exponentials are powers of two: s carries a factor log2(e), and the saved lse is the base-2 logarithm
M0 + log2 sum_l 2^(s - M0).
"""

import triton
import triton.language as tl
from torch import Tensor

from ..geometry import element_of
from ..launch import output_view
from ..plan import Call
from ..tiles import add_product, load_tiles, logits, offset, store_tiles, zero_tiles
from .block import (
    load_weight,
    masked_softmax,
    small_block,
    small_launch,
    store_product,
)


@triton.jit
def _store_lse(lse, b, h, j, rows, exist, top, total, shape):
    at = ((b * shape.N + rows).to(tl.int64) * shape.P + j) * shape.H + h
    tl.store(lse + at, top + tl.log2(total), mask=exist)


@triton.jit
def small_forward_kernel(
    inputs, out, lse, shape,
    M: tl.constexpr, GW: tl.constexpr, ORDERS: tl.constexpr, EXCLUSIVE: tl.constexpr, SAVE_LSE: tl.constexpr,
    STAGES: tl.constexpr, D: tl.constexpr, TILES: tl.constexpr, ROWS: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    """Program: one study and head, own projections. Without lse a mask with alpha = 0 is neither read nor run."""
    b, h = tl.program_id(0) // shape.H, tl.program_id(0) % shape.H
    rows, keys, real_rows, real_keys, distance = small_block(shape.N, M, GW, ROWS, KEYS)
    values = zero_tiles(ROWS, TILES)
    for j in tl.range(shape.P, num_stages=STAGES):
        weight = load_weight(inputs.alpha, b, j)
        runs = SAVE_LSE or weight != 0
        last_row, last_key = tl.where(runs, shape.N, 0), tl.where(runs, M, 0)
        q = load_tiles(inputs.q, offset(inputs.q, b, j, h), rows, rows < last_row, D, TILES)
        k = load_tiles(inputs.k, offset(inputs.k, b, j, h), keys, keys < last_key, D, TILES)
        v = load_tiles(inputs.v, offset(inputs.v, b, j, h), keys, keys < last_key, D, TILES)
        if runs:
            s = logits(q, k, real_keys, shape.scale, TILES)
            weights, total, top = masked_softmax(s, distance <= element_of(ORDERS, j), EXCLUSIVE)
            values = add_product(values, weights * (weight / total)[:, None], v, TILES)
            # last: between the products this store would keep float32's operands in registers
            if SAVE_LSE:
                _store_lse(lse, b, h, j, rows, real_rows, top, total, shape)
    store_tiles(out, offset(out, b, 0, h), rows, real_rows, values, D, TILES)


@triton.jit
def small_shared_forward_kernel(
    inputs, out, lse, shape,
    M: tl.constexpr, GW: tl.constexpr, ORDERS: tl.constexpr, EXCLUSIVE: tl.constexpr, SAVE_LSE: tl.constexpr,
    D: tl.constexpr, TILES: tl.constexpr, ROWS: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    """Program: one study and head; the masks share the projections, so their weights are summed before the product."""
    b, h = tl.program_id(0) // shape.H, tl.program_id(0) % shape.H
    rows, keys, real_rows, real_keys, distance = small_block(shape.N, M, GW, ROWS, KEYS)
    q = load_tiles(inputs.q, offset(inputs.q, b, 0, h), rows, real_rows, D, TILES)
    k = load_tiles(inputs.k, offset(inputs.k, b, 0, h), keys, real_keys, D, TILES)
    v = load_tiles(inputs.v, offset(inputs.v, b, 0, h), keys, real_keys, D, TILES)
    s = logits(q, k, real_keys, shape.scale, TILES)
    weights = tl.zeros((ROWS, KEYS), tl.float32)
    for j in range(shape.P):
        weight = load_weight(inputs.alpha, b, j)
        if SAVE_LSE or weight != 0:
            weights_j, total, top = masked_softmax(s, distance <= element_of(ORDERS, j), EXCLUSIVE)
            weights += weights_j * (weight / total)[:, None]
            if SAVE_LSE:
                _store_lse(lse, b, h, j, rows, real_rows, top, total, shape)
    store_product(out, offset(out, b, 0, h), rows, real_rows, weights.to(v[0].dtype), v, D, TILES)


def forward(call: Call, *, needs_lse: bool) -> tuple[Tensor, Tensor]:
    """out (B, N, H, D), and lse (B, N, P, H), a base-2 logarithm, if `needs_lse`, else (0,)."""
    out, lse = call.new_results(needs_lse=needs_lse)
    kernels = (small_forward_kernel, small_shared_forward_kernel)
    arguments = {"out": output_view(out), "lse": lse}
    small_launch("small_forward", kernels, call, arguments, {"SAVE_LSE": needs_lse})
    return out, lse

"""Backward of Eq. 5 for shared projections: the query side, then the key side."""

from __future__ import annotations

import triton
from torch import Tensor

from ..launch import output_view, projection_view
from ..moments import new_row_terms
from ..plan import Call, common_arguments, launch, shared_constants
from .keys import shared_backward_keys_kernel
from .queries import shared_backward_queries_kernel


def backward(call: Call, grad: Tensor, lse: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Contiguous gradients of q, k, v, alpha; lse (B, N, P, H) as forward saves it."""
    batch, rows, _, heads, dim = call.q.shape
    queries, keys = call.config("shared_backward_queries"), call.config("shared_backward_keys")
    dq, dk, dv = call.new_gradients()
    constants = {**shared_constants(call), "WIDE": call.wide}
    terms = new_row_terms(call.alpha, (batch, len(constants["REACHES"]), heads, rows), wide=call.wide)
    # shares of every block of rows are added up in a fixed order
    blocks = call.row_blocks(queries.rows)
    dalpha = call.alpha.new_empty(blocks, batch, call.masks, heads)
    rest = call.alpha.new_empty(blocks, batch, heads, dim)
    common = {**common_arguments(call), "grad": output_view(grad), "terms": terms}
    outputs = {"lse": lse, "dq": projection_view(dq), "dalpha": dalpha, "rest": rest}
    launch(shared_backward_queries_kernel, call, blocks, queries, {**common, **outputs}, constants)
    outputs = {"rest": rest.sum(0), "dk": projection_view(dk), "dv": projection_view(dv)}
    key_blocks = triton.cdiv(call.k.shape[1], keys.keys)
    launch(shared_backward_keys_kernel, call, key_blocks, keys, {**common, **outputs}, constants)
    return dq, dk, dv, dalpha.sum((0, 3))

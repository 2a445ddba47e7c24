"""Backward of Eq. 5 for shared projections: the query side, then the key side."""

from __future__ import annotations

import torch
from torch import Tensor

from diffrgen_kernels.contract import MaskSpec
from diffrgen_kernels.triton_backend.backward_queries import RowTerms
from diffrgen_kernels.triton_backend.large import sum_over_keys
from diffrgen_kernels.triton_backend.plan import shared_constants
from diffrgen_kernels.triton_backend.shared_backward_keys import shared_backward_keys_launch
from diffrgen_kernels.triton_backend.shared_backward_queries import shared_backward_queries_launch, shared_row_blocks


def backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, alpha: Tensor, lse: Tensor, spec: MaskSpec
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Contiguous gradients of q, k, v, alpha; lse (B, N, P, H) in base 2, as forward saves it."""
    batch, rows, _, heads, dim = q.shape
    alpha = alpha.contiguous()
    dq, dk, dv = (torch.empty_like(x, memory_format=torch.contiguous_format) for x in (q, k, v))
    fixed = shared_constants(dim, spec)
    terms = RowTerms(*alpha.new_empty(4, batch, len(fixed["REACHES"]), heads, rows).unbind())
    # shares of every block of rows are added up in a fixed order
    blocks = shared_row_blocks(q, k)
    dalpha = alpha.new_empty(blocks, batch, alpha.shape[1], heads)
    shares = alpha.new_empty(blocks, batch, heads, dim)
    value_sum = sum_over_keys(v, fixed["FLOORED"])
    shared_backward_queries_launch(grad, q, k, v, value_sum, alpha, lse, dq, terms, dalpha, shares, spec).run()
    shared_backward_keys_launch(grad, q, k, v, alpha, terms, shares.sum(0), dk, dv, spec).run()
    return dq, dk, dv, dalpha.sum((0, 3))

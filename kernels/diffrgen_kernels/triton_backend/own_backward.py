"""Backward of Eq. 5 for own projections per mask: the query side, then the key side."""

from __future__ import annotations

import torch
from torch import Tensor

from diffrgen_kernels.contract import MaskSpec
from diffrgen_kernels.triton_backend.backward_keys import backward_keys_launches
from diffrgen_kernels.triton_backend.backward_queries import RowTerms, backward_queries_launches, row_blocks_of
from diffrgen_kernels.triton_backend.large import sum_over_keys
from diffrgen_kernels.triton_backend.plan import constants


def backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, alpha: Tensor, lse: Tensor, spec: MaskSpec
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Contiguous gradients of q, k, v, alpha; lse (B, N, P, H) in base 2, as forward saves it."""
    batch, rows, masks, heads, dim = q.shape
    alpha = alpha.contiguous()
    dq, dk, dv = (torch.empty_like(x, memory_format=torch.contiguous_format) for x in (q, k, v))
    terms = RowTerms(*alpha.new_empty(4, batch, masks, heads, rows).unbind())
    windowed = constants(dim, spec)["WINDOW_MASKS"]
    # shares of every block of rows are added up in a fixed order
    blocks = row_blocks_of(q, k)
    dalpha = alpha.new_empty(blocks, batch, masks, heads)
    rest = alpha.new_empty(blocks, batch, len(windowed), heads, dim)
    value_sum = sum_over_keys(v, bool(windowed) and not spec.exclusive)
    for launch in backward_queries_launches(grad, q, k, v, value_sum, alpha, lse, dq, terms, dalpha, rest, spec):
        launch.run()
    for launch in backward_keys_launches(grad, q, k, v, alpha, terms, rest.sum(0), dk, dv, spec):
        launch.run()
    return dq, dk, dv, dalpha.sum((0, 3))

"""Backward of Eq. 5 for own projections per mask: the query side, then the key side."""

from __future__ import annotations

import torch
import triton
from torch import Tensor

from ..launch import output_view, projection_view
from ..moments import new_row_terms
from ..plan import Call, common_arguments, launch, mask_kinds
from .keys import backward_keys_kernel
from .queries import backward_queries_kernel


def backward(call: Call, grad: Tensor, lse: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Contiguous gradients of q, k, v, alpha; lse (B, N, P, H) as forward saves it.

    Where the masks share the projections, each mask has gradients of its own, which are added up.
    """
    batch, rows, _, heads, dim = call.q.shape
    queries, keys = call.config("backward_queries"), call.config("backward_keys")
    dq, dk, dv = _gradients(call)
    terms = new_row_terms(call.alpha, (batch, call.masks, heads, rows), wide=call.wide)
    # shares of every block of rows are added up in a fixed order
    blocks = call.row_blocks(queries.rows)
    dalpha = call.alpha.new_empty(blocks, batch, call.masks, heads)
    rest = call.alpha.new_empty(blocks, batch, len(call.windowed), heads, dim)
    common = {**common_arguments(call), "grad": output_view(grad), "terms": terms}
    outputs = {"lse": lse, "dq": projection_view(dq), "dalpha": dalpha, "rest": rest}
    for kind in mask_kinds(call):
        even = {"EVEN": call.k.shape[1] % queries.keys == 0}
        programs = len(kind["MASKS"]) * blocks
        launch(backward_queries_kernel, call, programs, queries, {**common, **outputs}, {**kind, **even})
    outputs = {"rest": rest.sum(0), "dk": projection_view(dk), "dv": projection_view(dv)}
    for kind in mask_kinds(call):
        programs = len(kind["MASKS"]) * _key_blocks(call, keys.keys, full=kind["FULL"])
        launch(backward_keys_kernel, call, programs, keys, {**common, **outputs}, kind)
    # (B, P, H, N) to (B, N, P), or (blocks, B, P, H) to (B, P)
    dalpha = terms.delta.sum(2).transpose(1, 2).contiguous() if call.row_alpha else dalpha.sum((0, 3))
    if call.shared:
        dq, dk, dv = (x.sum(2, keepdim=True).to(call.q.dtype) for x in (dq, dk, dv))
    return dq, dk, dv, dalpha


def _gradients(call: Call) -> tuple[Tensor, Tensor, Tensor]:
    """Memory of dq, dk, dv for each mask, float32 where they are to be added up."""
    if not call.shared:
        return call.new_gradients()
    dq, dk, dv = (
        x.new_empty(*x.shape[:2], call.masks, *x.shape[3:], dtype=torch.float32) for x in (call.q, call.k, call.v)
    )
    return dq, dk, dv


def _key_blocks(call: Call, block: int, *, full: bool) -> int:
    """Blocks of keys of one study, mask and head; those of a window lie in one view."""
    keys, patches = call.k.shape[1], call.spec.patches
    return triton.cdiv(keys, block) if full else keys // patches * triton.cdiv(patches, block)

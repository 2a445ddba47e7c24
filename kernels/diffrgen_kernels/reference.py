"""Eq. 5 in plain PyTorch, line for line: what every backend computes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from .checks import check_call, check_grid, check_masking, check_orders, check_scale, check_tensors
from .contract import Masking, MaskSpec, sum_dtype
from .windows import Order, window_masks

LSE_UNIT = 1.0


def routed_coattention_reference(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    alpha: Tensor,
    *,
    grid: Sequence[int],
    orders: Sequence[Order],
    masking: Masking = "multiplicative",
    scale: float | None = None,
    centres: Tensor | None = None,
    key_mask: Tensor | None = None,
) -> Tensor:
    """head = sum_j alpha_j softmax(scale * Q_j K_j^T (x) A^j) V_j   (Eq. 5), for all heads at once.

    Plain PyTorch: any number of derivatives, forward or reverse. Arguments, result and errors are those of
    `routed_coattention`.

    One query with the routing weights 3/4 and 1/4 over two equal masks on a 1 x 2 grid: both logits are 0, so both
    values count half.

    >>> q, k = torch.zeros(1, 1, 2, 1, 1), torch.ones(1, 2, 2, 1, 1)
    >>> v = torch.tensor([2.0, 4.0]).view(1, 2, 1, 1, 1).expand(1, 2, 2, 1, 1)
    >>> alpha = torch.tensor([[0.75, 0.25]])
    >>> routed_coattention_reference(q, k, v, alpha, grid=(1, 2), orders=(0, 1)).item()
    3.0
    """
    check_tensors(q=q, k=k, v=v, alpha=alpha)
    exclusive, scale = check_masking(masking), check_scale(scale, q)
    spec = MaskSpec(check_grid(grid), check_orders(orders), exclusive, scale)
    check_call(q, k, v, alpha, centres, key_mask, spec)
    return attend(q, k, v, alpha, centres, key_mask, spec)


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    alpha: Tensor,
    centres: Tensor | None,
    key_mask: Tensor | None,
    spec: MaskSpec,
) -> Tensor:
    """Eq. 5: (B, N, H, D) in the dtype of q; softmax and sums are float32 (float64 for float64)."""
    wide = sum_dtype(q.dtype)
    out = torch.zeros(q.shape[0], q.shape[1], q.shape[3], q.shape[4], dtype=wide, device=q.device)
    for j, mask in enumerate(_masks(q, k, centres, spec)):
        q_j, k_j, v_j = _projections(q, k, v, j, key_mask)  # (B, H, N or M, D)
        head = _attention(_logits(q_j, k_j, mask, key_mask, spec), key_mask) @ v_j  # (B, H, N, D)
        out = out + _column(alpha, j) * head.transpose(1, 2)  # (B, N, H, D)
    return out.to(q.dtype)


def _masks(q: Tensor, k: Tensor, centres: Tensor | None, spec: MaskSpec) -> Iterator[Tensor]:
    """A^j of each mask: (N, M), or with centres (B or 1, 1, N, M)."""
    options: dict[str, Any] = {"centres": centres, "views": k.shape[1] // spec.patches, "dtype": sum_dtype(q.dtype)}
    masks = window_masks(spec.grid, spec.orders, q.shape[1], device=q.device, **options)
    return iter(masks if centres is None else masks[:, :, None])


def _projections(q: Tensor, k: Tensor, v: Tensor, j: int, key_mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Q_j, K_j, V_j as (B, H, rows, D) in the dtype of the sums; keys that do not exist are 0, whatever is there."""
    own = j if q.shape[2] > 1 else 0  # where the masks share them, the only ones
    q_j, k_j, v_j = (x[:, :, own].to(sum_dtype(q.dtype)).transpose(1, 2) for x in (q, k, v))
    if key_mask is not None:
        absent = ~key_mask[:, None, :, None]  # (B, 1, M, 1)
        k_j, v_j = k_j.masked_fill(absent, 0.0), v_j.masked_fill(absent, 0.0)
    return q_j, k_j, v_j


def _column(alpha: Tensor, j: int) -> Tensor:
    """alpha_j of each row of (B, N, H, D): (B, 1, 1, 1), or (B, N, 1, 1) where each row has its own."""
    return alpha[:, j, None, None, None] if alpha.dim() == 2 else alpha[:, :, j, None, None]


def _logits(q_j: Tensor, k_j: Tensor, mask: Tensor, key_mask: Tensor | None, spec: MaskSpec) -> Tensor:
    """scale * Q_j K_j^T (x) A^j, and -inf where a key does not exist: (B, H, N, M)."""
    logits = spec.scale * q_j @ k_j.mT
    logits = logits.masked_fill(mask == 0, -torch.inf) if spec.exclusive else logits * mask
    return logits if key_mask is None else logits.masked_fill(~key_mask[:, None, None], -torch.inf)


def _attention(logits: Tensor, key_mask: Tensor | None) -> Tensor:
    """softmax(logits): (B, H, N, M); all 0 if a row has no key."""
    if key_mask is None:
        return torch.softmax(logits, dim=-1)
    empty = (logits == -torch.inf).all(-1, keepdim=True)  # (B, H, N, 1)
    return torch.softmax(logits.masked_fill(empty, 0.0), dim=-1).masked_fill(empty, 0.0)


def unavailable(device_type: str, dtype: torch.dtype) -> str | None:
    """The reference runs wherever PyTorch does."""
    return None


def unsupported(device_type: str, spec: MaskSpec, features: frozenset[str]) -> str | None:
    """The reference computes every call."""
    return None


def forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    alpha: Tensor,
    centres: Tensor | None,
    key_mask: Tensor | None,
    spec: MaskSpec,
    *,
    needs_lse: bool,
) -> tuple[Tensor, Tensor]:
    """Eq. 5, and log sum_l e^logit for each row, mask and head."""
    out = attend(q, k, v, alpha, centres, key_mask, spec)
    if not needs_lse:
        return out, alpha.new_empty(0)
    lse = alpha.new_empty(q.shape[0], q.shape[1], alpha.shape[-1], q.shape[3])  # (B, N, P, H)
    for j, mask in enumerate(_masks(q, k, centres, spec)):
        q_j, k_j, _ = _projections(q, k, v, j, key_mask)
        lse[:, :, j] = torch.logsumexp(_logits(q_j, k_j, mask, key_mask, spec), dim=-1).transpose(1, 2)
    return out, lse


def backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    alpha: Tensor,
    centres: Tensor | None,
    key_mask: Tensor | None,
    lse: Tensor,
    spec: MaskSpec,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The derivative of Eq. 5 written out; the weights are computed again."""
    wide = sum_dtype(q.dtype)
    dq, dk, dv = (torch.zeros_like(x, dtype=wide, memory_format=torch.contiguous_format) for x in (q, k, v))
    dalpha = torch.zeros_like(alpha, memory_format=torch.contiguous_format)
    g = grad.to(wide).transpose(1, 2)  # (B, H, N, D)
    for j, mask in enumerate(_masks(q, k, centres, spec)):
        own = j if q.shape[2] > 1 else 0
        q_j, k_j, v_j = _projections(q, k, v, j, key_mask)  # (B, H, N or M, D)
        weights = _attention(_logits(q_j, k_j, mask, key_mask, spec), key_mask)  # (B, H, N, M)
        d_weights = g @ v_j.mT  # (B, H, N, M)
        delta = (weights * d_weights).sum(-1, keepdim=True)  # (B, H, N, 1)
        alpha_j = _column(alpha, j).transpose(1, 2)  # (B, 1, 1 or N, 1)
        d_logits = alpha_j * spec.scale * mask * weights * (d_weights - delta)  # (B, H, N, M)
        dalpha[..., j] = delta.sum((1, 2, 3)) if alpha.dim() == 2 else delta.sum((1, 3))
        dq[:, :, own] += (d_logits @ k_j).transpose(1, 2)
        dk[:, :, own] += (d_logits.mT @ q_j).transpose(1, 2)
        dv[:, :, own] += (alpha_j * weights.mT @ g if alpha.dim() == 2 else weights.mT @ (alpha_j * g)).transpose(1, 2)
    return dq.to(q.dtype), dk.to(q.dtype), dv.to(q.dtype), dalpha


def tangent(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    alpha: Tensor,
    centres: Tensor | None,
    key_mask: Tensor | None,
    spec: MaskSpec,
    d_inputs: tuple[Tensor, Tensor, Tensor, Tensor],
) -> Tensor:
    """The change of `attend` (B, N, H, D) where q, k, v and alpha change by `d_inputs`: forward-mode differentiation."""
    dq, dk, dv, dalpha = d_inputs
    d_out = torch.zeros((), dtype=sum_dtype(q.dtype), device=q.device)
    for j, mask in enumerate(_masks(q, k, centres, spec)):
        q_j, k_j, v_j = _projections(q, k, v, j, key_mask)  # (B, H, N or M, D)
        dq_j, dk_j, dv_j = _projections(dq, dk, dv, j, key_mask)
        weights = _attention(_logits(q_j, k_j, mask, key_mask, spec), key_mask)  # (B, H, N, M)
        d_logits = spec.scale * (dq_j @ k_j.mT + q_j @ dk_j.mT) * mask  # (B, H, N, M)
        d_weights = weights * (d_logits - (weights * d_logits).sum(-1, keepdim=True))  # (B, H, N, M)
        d_head = (d_weights @ v_j + weights @ dv_j).transpose(1, 2)  # (B, N, H, D)
        d_out = d_out + _column(dalpha, j) * (weights @ v_j).transpose(1, 2) + _column(alpha, j) * d_head
    return d_out.to(q.dtype)

"""Eq. 5 in plain PyTorch, line for line: what every backend computes."""

from __future__ import annotations

import torch
from torch import Tensor

from diffrgen_kernels.contract import MaskSpec, sum_dtype
from diffrgen_kernels.windows import window_masks

SAVES_LSE = False


def routed_coattention_reference(q: Tensor, k: Tensor, v: Tensor, alpha: Tensor, spec: MaskSpec) -> Tensor:
    """head = sum_j alpha_j softmax(scale * Q_j K_j^T (x) A^j) V_j   (Eq. 5), for all heads at once.

    Args:
        q: (B, N, P, H, D), or (B, N, 1, H, D) where the masks share the projections.
        k: (B, M, P, H, D), or (B, M, 1, H, D).
        v: as k.
        alpha: (B, P) routing weights.
        spec: grid, orders, masking and scale; M = grid[0] * grid[1].

    Returns:
        (B, N, H, D) in the dtype of q; softmax and sums are float32 (float64 for float64).

    One query with the routing weights 3/4 and 1/4 over two equal masks on a 1 x 2 grid: both logits are 0, so both
    values count half.

    >>> q, k = torch.zeros(1, 1, 2, 1, 1), torch.ones(1, 2, 2, 1, 1)
    >>> v = torch.tensor([2.0, 4.0]).view(1, 2, 1, 1, 1).expand(1, 2, 2, 1, 1)
    >>> alpha = torch.tensor([[0.75, 0.25]])
    >>> routed_coattention_reference(q, k, v, alpha, MaskSpec((1, 2), (0, 1), False, 1.0)).item()
    3.0
    """
    wide = sum_dtype(q.dtype)
    masks = window_masks(spec.grid, spec.orders, q.shape[1], dtype=wide, device=q.device)  # (P, N, M)
    out = torch.zeros(q.shape[0], q.shape[1], q.shape[3], q.shape[4], dtype=wide, device=q.device)
    for j, mask in enumerate(masks):
        q_j, k_j, v_j = _own_projections(q, k, v, j)  # (B, H, N or M, D)
        head = _attention(q_j, k_j, mask, spec) @ v_j  # (B, H, N, D)
        out = out + alpha[:, j, None, None, None] * head.transpose(1, 2)  # (B, N, H, D)
    return out.to(q.dtype)


def _own_projections(q: Tensor, k: Tensor, v: Tensor, j: int) -> tuple[Tensor, Tensor, Tensor]:
    """Q_j, K_j, V_j as (B, H, rows, D) in the dtype of the sums; where the masks share them, the only ones."""
    own = j if q.shape[2] > 1 else 0
    q_j, k_j, v_j = (x[:, :, own].to(sum_dtype(q.dtype)).transpose(1, 2) for x in (q, k, v))
    return q_j, k_j, v_j


def _attention(q_j: Tensor, k_j: Tensor, mask: Tensor, spec: MaskSpec) -> Tensor:
    """softmax(scale * Q_j K_j^T (x) A^j): (B, H, N, M)."""
    logits = spec.scale * q_j @ k_j.mT
    logits = logits.masked_fill(mask == 0, -torch.inf) if spec.exclusive else logits * mask
    return torch.softmax(logits, dim=-1)


def unavailable(device_type: str, dtype: torch.dtype) -> str | None:
    """The reference runs wherever PyTorch does."""
    return None


def forward(
    q: Tensor, k: Tensor, v: Tensor, alpha: Tensor, spec: MaskSpec, *, needs_grad: bool
) -> tuple[Tensor, Tensor]:
    """Eq. 5; nothing but the inputs is kept for backward."""
    return routed_coattention_reference(q, k, v, alpha, spec), alpha.new_empty(0)


def backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, alpha: Tensor, lse: Tensor, spec: MaskSpec
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The derivative of Eq. 5 written out; the weights are computed again."""
    wide = sum_dtype(q.dtype)
    masks = window_masks(spec.grid, spec.orders, q.shape[1], dtype=wide, device=q.device)  # (P, N, M)
    dq, dk, dv = (torch.zeros_like(x, dtype=wide, memory_format=torch.contiguous_format) for x in (q, k, v))
    dalpha = torch.zeros_like(alpha, memory_format=torch.contiguous_format)
    g = grad.to(wide).transpose(1, 2)  # (B, H, N, D)
    for j, mask in enumerate(masks):
        own = j if q.shape[2] > 1 else 0
        q_j, k_j, v_j = _own_projections(q, k, v, j)  # (B, H, N or M, D)
        weights = _attention(q_j, k_j, mask, spec)  # (B, H, N, M)
        d_weights = g @ v_j.mT  # (B, H, N, M)
        delta = (weights * d_weights).sum(-1, keepdim=True)  # (B, H, N, 1)
        alpha_j = alpha[:, j, None, None, None]
        d_logits = alpha_j * spec.scale * mask * weights * (d_weights - delta)  # (B, H, N, M)
        dalpha[:, j] = delta.sum((1, 2, 3))
        dq[:, :, own] += (d_logits @ k_j).transpose(1, 2)
        dk[:, :, own] += (d_logits.mT @ q_j).transpose(1, 2)
        dv[:, :, own] += (alpha_j * weights.mT @ g).transpose(1, 2)
    return dq.to(q.dtype), dk.to(q.dtype), dv.to(q.dtype), dalpha

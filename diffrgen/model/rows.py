"""Rows of a batch of which some may be absent."""

from __future__ import annotations

import torch
from torch import Tensor


def given_or_true(mask: Tensor | None, tokens: Tensor) -> Tensor:
    """Return `mask`, or by default a mask (B, N) of ones for all tokens (B, N, d)."""
    return tokens.new_ones(tokens.shape[:2], dtype=torch.bool) if mask is None else mask


def masked_mean(tokens: Tensor, mask: Tensor) -> Tensor:
    """Return the mean (B, d) of the first N of tokens (B, N + R, d) where mask (B, N); zero where none is real."""
    weights = mask.to(tokens).unsqueeze(-1)
    return (tokens[:, : mask.shape[1]] * weights).sum(1) / weights.sum(1).clamp_min(1)

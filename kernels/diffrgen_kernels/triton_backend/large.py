"""Large shapes: one program a block of rows or of keys. This file holds what the launches of those kernels share."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from diffrgen_kernels.contract import MaskSpec
from diffrgen_kernels.triton_backend.configs import config_for
from diffrgen_kernels.triton_backend.launch import Launch, output_view, projection_view
from diffrgen_kernels.triton_backend.plan import row_blocks, sizes


def sum_over_keys(v: Tensor, needed: bool) -> Tensor:
    """sum_l v, (B, P, H, D) float32, which masked keys of logit 0 are weighed with; empty where no mask has any."""
    return v.sum(1, dtype=torch.float32).contiguous() if needed else v.new_empty(0, dtype=torch.float32)


def operands(q: Tensor, k: Tensor, v: Tensor, alpha: Tensor, spec: MaskSpec) -> dict[str, Any]:
    """The arguments that every kernel takes."""
    views = {"q": projection_view(q), "k": projection_view(k), "v": projection_view(v)}
    return {**views, **sizes(q, k, alpha, spec)}


def forward_launch(
    name: str,
    kernel: Any,
    constants: dict[str, Any],
    q: Tensor,
    k: Tensor,
    v: Tensor,
    value_sum: Tensor,
    alpha: Tensor,
    out: Tensor,
    lse: Tensor,
    spec: MaskSpec,
) -> Launch:
    """The launch of a forward kernel, by its name in the tables of configs.py; lse (B, N, P, H) or empty."""
    batch, rows, _, heads, dim = q.shape
    config = config_for(name, q.dtype, dim)
    return Launch(
        kernel,
        batch * heads * row_blocks(rows, k.shape[1], config.rows),
        {
            **operands(q, k, v, alpha, spec),
            "alpha": alpha.contiguous(),
            "value_sum": value_sum,
            "out": output_view(out),
            "lse": lse,
        },
        {**constants, "SAVE_LSE": lse.numel() > 0, "ROWS": config.rows, "KEYS": config.keys},
        config.warps,
        config.stages,
    )

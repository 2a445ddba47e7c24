"""What a call of the operator must look like, checked once for every backend."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

Masking = Literal["multiplicative", "exclusive"]
MASKINGS = ("multiplicative", "exclusive")
DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
MAX_HEAD_DIM = 256


@dataclass(frozen=True)
class MaskSpec:
    """The part of a call that is not a tensor.

    grid: (gh, gw) patches. orders: the window order of each mask. exclusive: masked logits are -inf instead of 0.
    scale: factor of the logits.
    """

    grid: tuple[int, int]
    orders: tuple[int, ...]
    exclusive: bool
    scale: float


class Backend(Protocol):
    """A module that computes the operator. Tensors have passed `check_call`; sums are in `sum_dtype`."""

    SAVES_LSE: bool  # forward returns the log-sum-exp (B, N, P, H) for backward; else an empty tensor

    def unavailable(self, device_type: str, dtype: torch.dtype) -> str | None:
        """Why this backend cannot run there, or None."""

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, alpha: Tensor, spec: MaskSpec, *, needs_grad: bool
    ) -> tuple[Tensor, Tensor]:
        """out (B, N, H, D), and lse (B, N, P, H) if `needs_grad` and SAVES_LSE, else (0,)."""

    def backward(
        self, grad: Tensor, q: Tensor, k: Tensor, v: Tensor, alpha: Tensor, lse: Tensor, spec: MaskSpec
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Contiguous gradients of q, k, v, alpha for `grad` (B, N, H, D)."""


def sum_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype of softmax and sums: float64 for float64, else float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def check_call(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    alpha: Tensor,
    *,
    grid: Sequence[int],
    orders: Sequence[int],
    masking: str,
    scale: float | None,
) -> MaskSpec:
    """Check a call of `routed_coattention`; ValueError says what was expected and what came."""
    _check_shapes(q, k, v, alpha)
    _check_types(q, k, v, alpha)
    _check_grid(grid, k.shape[1])
    _check_orders(orders, alpha.shape[1])
    if masking not in MASKINGS:
        raise ValueError(f"masking: expected one of {', '.join(MASKINGS)}, got {masking!r}")
    if scale is None:
        scale = q.shape[4] ** -0.5
    if not abs(scale) < math.inf:
        raise ValueError(f"scale: expected a finite number or None (1/sqrt(D)), got {scale}")
    return MaskSpec((grid[0], grid[1]), tuple(orders), masking == "exclusive", scale)


def _check_shapes(q: Tensor, k: Tensor, v: Tensor, alpha: Tensor) -> None:
    for name, tensor, layout in (("q", q, "(B, N, P, H, D)"), ("k", k, "(B, M, P, H, D)"), ("v", v, "(B, M, P, H, D)")):
        if tensor.dim() != 5:
            raise ValueError(f"{name}: expected shape {layout}, got {tuple(tensor.shape)}")
    if alpha.dim() != 2:
        raise ValueError(f"alpha: expected shape (B, P), got {tuple(alpha.shape)}")
    for name, tensor in (("q", q), ("k", k), ("v", v), ("alpha", alpha)):
        if 0 in tensor.shape:
            raise ValueError(f"{name}: expected at least one element along every axis, got shape {tuple(tensor.shape)}")
    if v.shape != k.shape:
        raise ValueError(f"v: expected the shape of k, {tuple(k.shape)}, got {tuple(v.shape)}")
    if k.shape[0] != q.shape[0] or k.shape[2:] != q.shape[2:]:
        batch, _, masks, heads, dim = q.shape
        raise ValueError(f"k: expected ({batch}, M, {masks}, {heads}, {dim}) to match q, got {tuple(k.shape)}")
    if alpha.shape[0] != q.shape[0]:
        raise ValueError(f"alpha: expected the batch size of q, {q.shape[0]}, got {alpha.shape[0]}")
    if q.shape[2] not in (1, alpha.shape[1]):
        raise ValueError(
            f"q: expected the P axis (2) to be alpha's {alpha.shape[1]} masks or 1 for shared projections, "
            f"got {q.shape[2]}"
        )
    if q.shape[4] > MAX_HEAD_DIM:
        raise ValueError(f"q: expected a head dimension D of at most {MAX_HEAD_DIM}, got {q.shape[4]}: use more heads")


def _check_types(q: Tensor, k: Tensor, v: Tensor, alpha: Tensor) -> None:
    for name, tensor in (("k", k), ("v", v), ("alpha", alpha)):
        if tensor.device != q.device:
            raise ValueError(f"{name}: expected the device of q, {q.device}, got {tensor.device}")
    for name, tensor in (("q", q), ("k", k), ("v", v), ("alpha", alpha)):
        if tensor.dtype not in DTYPES:
            wanted = ", ".join(str(dtype) for dtype in DTYPES)
            raise ValueError(f"{name}: expected dtype {wanted}, got {tensor.dtype}")
    if torch.is_autocast_enabled(q.device.type):
        return  # the autocast rule brings q, k, v and alpha to their dtypes
    for name, tensor in (("k", k), ("v", v)):
        if tensor.dtype != q.dtype:
            raise ValueError(f"{name}: expected the dtype of q, {q.dtype}, got {tensor.dtype}")
    if alpha.dtype != sum_dtype(q.dtype):
        raise ValueError(f"alpha: expected {sum_dtype(q.dtype)} (q is {q.dtype}), got {alpha.dtype}")


def _check_grid(grid: Sequence[int], patches: int) -> None:
    if len(grid) != 2:
        raise ValueError(f"grid: expected (gh, gw), got {tuple(grid)}")
    if grid[0] < 1 or grid[1] < 1 or grid[0] * grid[1] != patches:
        raise ValueError(f"grid: expected gh * gw = M = {patches} (axis 1 of k), got {tuple(grid)}")


def _check_orders(orders: Sequence[int], masks: int) -> None:
    if len(orders) != masks:
        raise ValueError(f"orders: expected {masks} orders, one for each column of alpha, got {tuple(orders)}")
    if any(order < 0 for order in orders):
        raise ValueError(f"orders: expected orders >= 0 (0 = the whole grid), got {tuple(orders)}")

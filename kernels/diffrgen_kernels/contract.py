"""What a call of the operator consists of, and what a backend implements."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from .windows import Order, half_sizes

Masking = Literal["multiplicative", "exclusive"]
MASKINGS = ("multiplicative", "exclusive")

# what a call may use beyond the plain one, in the words of an error message
FEATURES = {
    "views": "keys of several views (M a multiple of gh * gw)",
    "centres": "centres",
    "key_mask": "key_mask",
    "row_alpha": "alpha of shape (B, N, P)",
    "rectangles": "windows (height, width)",
}


@dataclass(frozen=True)
class MaskSpec:
    """The part of a call that is not a tensor.

    grid: (gh, gw) patches of a view. orders: the window of each mask, as `window_masks` takes them; a square is an int.
    exclusive: masked logits are -inf instead of 0. scale: factor of the logits. ValueError for a grid without patches, a
    window below 0 and a scale that is not finite.
    """

    grid: tuple[int, int]
    orders: tuple[Order, ...]
    exclusive: bool
    scale: float

    def __post_init__(self) -> None:
        if len(self.grid) != 2 or self.grid[0] < 1 or self.grid[1] < 1:
            raise ValueError(f"grid: expected (gh, gw), both at least 1, got {self.grid}")
        for order in self.orders:
            if (order[0] < 0 or order[1] < 0) if isinstance(order, tuple) else order < 0:
                raise ValueError(f"orders: expected numbers or pairs (height, width) of at least 0, got {self.orders}")
        if not abs(self.scale) < math.inf:
            raise ValueError(f"scale: expected a finite number, got {self.scale}")

    @property
    def windows(self) -> tuple[tuple[int, int], ...]:
        """Each mask's `half_sizes` (height, width); they cover the grid where they are at least (gh - 1, gw - 1)."""
        return tuple(half_sizes(order, self.grid) for order in self.orders)

    @property
    def patches(self) -> int:
        """Patches of a view, gh * gw."""
        return self.grid[0] * self.grid[1]


def features_of(
    k: Tensor, alpha: Tensor, centres: Tensor | None, key_mask: Tensor | None, spec: MaskSpec
) -> frozenset[str]:
    """The names of FEATURES that a call uses."""
    used = {
        "views": k.shape[1] != spec.patches,
        "centres": centres is not None,
        "key_mask": key_mask is not None,
        "row_alpha": alpha.dim() == 3,
        "rectangles": any(isinstance(order, tuple) for order in spec.orders),
    }
    return frozenset(name for name, there in used.items() if there)


def lacking(features: frozenset[str], supported: Sequence[str] = ()) -> str | None:
    """Why a backend with `supported` cannot compute a call that uses `features`: None if it supports all of them."""
    missing = [words for name, words in FEATURES.items() if name in features and name not in supported]
    return f"it has no kernels for {', '.join(missing)}" if missing else None


class Backend(Protocol):
    """A module that computes the operator. Tensors have passed `check_call`, B >= 1; sums are in `sum_dtype`.

    centres: (B or 1, N) int64 or None; a number outside of the grid counts as the nearest one of the grid, for a GPU is
    not waited for. key_mask: (B, M) bool or None. alpha: (B, P) or (B, N, P).
    """

    LSE_UNIT: float  # natural logarithms in a unit of forward's lse: 1, or log 2 where that is a base-2 logarithm

    def unavailable(self, device_type: str, dtype: torch.dtype) -> str | None:
        """Why this backend cannot run there, or None."""

    def unsupported(self, device_type: str, spec: MaskSpec, features: frozenset[str]) -> str | None:
        """Why it cannot compute a call that uses `features` (names of FEATURES) there, or None."""

    def forward(
        self,
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
        """out (B, N, H, D), and the log-sum-exp of the masked logits (B, N, P, H) if `needs_lse`, else (0,).

        Without `needs_lse` a mask whose alpha is 0 need not be computed. A row without keys has the lse -inf.
        """

    def backward(
        self,
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
        """Contiguous gradients of q, k, v, alpha for `grad` (B, N, H, D), from forward's lse."""


def sum_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype of softmax and sums: float64 for float64, else float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32

"""The operator as Triton kernels, for NVIDIA GPUs (and Triton's interpreter on the CPU, to test them)."""

from __future__ import annotations

import math
from types import ModuleType

import torch
from torch import Tensor

from diffrgen_kernels.contract import MaskSpec, lacking

LSE_UNIT = math.log(2)
_MISSING: ImportError | None = None
try:
    from diffrgen_kernels.triton_backend import (
        own_backward,
        own_forward,
        shared_backward,
        shared_forward,
        small,
        small_backward,
        small_forward,
    )
except ImportError as error:
    _MISSING = error


def unavailable(device_type: str, dtype: torch.dtype) -> str | None:
    """Why the Triton kernels cannot run there, or None."""
    if _MISSING is not None:
        return f"Triton cannot be imported ({_MISSING}): pip install triton"
    from triton import knobs

    if dtype == torch.float64:
        return "the Triton kernels compute float32, float16 and bfloat16, not float64"
    if device_type == "cuda":
        return None
    if device_type != "cpu" or not knobs.runtime.interpret:
        return f"Triton kernels run on NVIDIA GPUs, not on {device_type} (TRITON_INTERPRET=1 tests them on the CPU)"
    if dtype == torch.bfloat16:
        return "Triton's interpreter computes bfloat16 products wrongly"
    return None


def _kernels(q: Tensor, k: Tensor, alpha: Tensor) -> tuple[ModuleType, ModuleType]:
    """The modules whose `forward` and `backward` compute a call."""
    if small.fits(q, k):
        return small_forward, small_backward
    if q.shape[2] == alpha.shape[1]:
        return own_forward, own_backward
    return shared_forward, shared_backward


def unsupported(device_type: str, spec: MaskSpec, features: frozenset[str]) -> str | None:
    """Why these kernels cannot compute such a call, or None."""
    return lacking(features)


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
    """out (B, N, H, D), and lse (B, N, P, H), a base-2 logarithm, if `needs_lse`, else (0,)."""
    found: tuple[Tensor, Tensor] = _kernels(q, k, alpha)[0].forward(q, k, v, alpha, spec, needs_grad=needs_lse)
    return found


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
    """Contiguous gradients of q, k, v, alpha."""
    found: tuple[Tensor, Tensor, Tensor, Tensor]
    found = _kernels(q, k, alpha)[1].backward(grad, q, k, v, alpha, lse, spec)
    return found

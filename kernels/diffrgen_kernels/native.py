"""The compiled extension (csrc/) as a backend."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ._ops import ops
from .contract import MaskSpec, lacking

LSE_UNIT = 1.0
MAX_CUDA_MASKS = 64  # kMaxMasks of csrc/cuda/problem.h
_FOLDER = Path(__file__).parent


@functools.cache
def _load() -> str | None:
    """Load the extension; why it cannot be, or None."""
    if _in_ops():
        return None
    found = sorted(_FOLDER.glob("_native*.so"))
    if not found:
        note = _FOLDER / "_native_skipped.txt"
        reason = note.read_text().strip() if note.exists() else "the package has not been installed with pip"
        return f"the extension was not built: {reason}"
    try:
        torch.ops.load_library(found[0])
    except OSError as error:
        return f"{found[0].name} does not load into torch {torch.__version__}: {error}"
    return None


@functools.cache
def _in_ops() -> bool:
    """The extension came with `_ops`, as in a build for the kernel hub."""
    return hasattr(ops, "forward")


@functools.cache
def _native() -> Any:
    """The namespace of the extension's ops."""
    return ops if _in_ops() else torch.ops.diffrgen_native


def unavailable(device_type: str, dtype: torch.dtype) -> str | None:
    """Why the extension cannot run there, or None."""
    if device_type not in ("cpu", "cuda"):
        return f"the extension has no kernels for {device_type}"
    return _load() or (_cuda_unavailable(dtype) if device_type == "cuda" else None)


def _cuda_unavailable(dtype: torch.dtype) -> str | None:
    note = _FOLDER / "_native_cuda_skipped.txt"
    if note.exists():
        return f"the extension was built without CUDA: {note.read_text().strip()}"
    if not torch._C._dispatch_has_kernel_for_dispatch_key(_native().forward.default.name(), "CUDA"):
        return "the extension was built without CUDA"
    if dtype not in (torch.float32, torch.float16, torch.bfloat16):
        return f"its CUDA kernels take float32, float16 and bfloat16, not {dtype}"
    if not torch.cuda.is_available():
        return "PyTorch sees no GPU"
    if (capability := torch.cuda.get_device_capability()) < (8, 0):
        return f"its CUDA kernels need compute capability 8.0, and this GPU has {capability[0]}.{capability[1]}"
    return None


def _stream(q: Tensor) -> int:
    """The handle of the stream to launch on."""
    return torch.cuda.current_stream(q.device).cuda_stream if q.is_cuda else 0


def _windows(spec: MaskSpec) -> list[int]:
    return [size for window in spec.windows for size in window]


def unsupported(device_type: str, spec: MaskSpec, features: frozenset[str]) -> str | None:
    """Why the extension cannot compute such a call, or None: on the CPU it computes every call."""
    if device_type == "cpu":
        return None
    if len(spec.orders) > MAX_CUDA_MASKS:
        return f"its CUDA kernels take at most {MAX_CUDA_MASKS} masks, and this call has {len(spec.orders)}"
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
    """csrc/cpu and csrc/cuda: the exact shortcut; without `needs_lse` a mask with alpha = 0 is not run."""
    out, lse = _native().forward(
        q, k, v, alpha, centres, key_mask, spec.grid, _windows(spec), spec.exclusive, spec.scale, needs_lse, _stream(q)
    )
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
    """csrc/cpu and csrc/cuda: logits are recomputed from the inputs and the log-sum-exp of forward."""
    dq, dk, dv, dalpha = _native().backward(
        grad, q, k, v, alpha, centres, key_mask, lse, spec.grid, _windows(spec), spec.exclusive, spec.scale, _stream(q)
    )
    return dq, dk, dv, dalpha

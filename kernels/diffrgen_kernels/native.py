"""The compiled extension (csrc/) as a backend."""

from __future__ import annotations

import functools
from pathlib import Path

import torch
from torch import Tensor

from diffrgen_kernels.contract import Routing

SAVES_LSE = False
_FOLDER = Path(__file__).parent


@functools.cache
def _load() -> str | None:
    """Load the extension; why it cannot be, or None."""
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


def unavailable(device_type: str, dtype: torch.dtype) -> str | None:
    """Why the extension cannot run there, or None."""
    if device_type != "cpu":
        return f"the extension has no kernels for {device_type}"
    return _load()


def forward(
    q: Tensor, k: Tensor, v: Tensor, alpha: Tensor, routing: Routing, *, needs_grad: bool
) -> tuple[Tensor, Tensor]:
    """csrc/cpu: the exact shortcut; without gradients a mask with alpha = 0 is not run."""
    out: Tensor = torch.ops.diffrgen_native.forward(
        q, k, v, alpha, routing.grid, routing.orders, routing.exclusive, routing.scale, not needs_grad
    )
    return out, alpha.new_empty(0)


def backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, alpha: Tensor, lse: Tensor, routing: Routing
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """csrc/cpu: logits are recomputed, so only the inputs are needed."""
    dq, dk, dv, dalpha = torch.ops.diffrgen_native.backward(
        grad, q, k, v, alpha, routing.grid, routing.orders, routing.exclusive, routing.scale
    )
    return dq, dk, dv, dalpha

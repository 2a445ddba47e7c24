"""Which backend computes a call, and why another one cannot."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import warnings
from typing import cast

import torch

from diffrgen_kernels.contract import Backend

# name -> module that implements contract.Backend; it is imported only when it is asked for
BACKENDS = {
    "reference": "diffrgen_kernels.reference",
    "triton": "diffrgen_kernels.triton_backend",
    "native": "diffrgen_kernels.native",
}
AUTO = {"cuda": ("triton", "native", "reference"), "cpu": ("native", "reference")}


def available_backends(device: torch.device | str | None = None, dtype: torch.dtype = torch.float32) -> dict[str, str]:
    """Each backend's name with "ok" or the reason why it cannot run.

    Args:
        device: where it would run; the GPU if PyTorch sees one, else the CPU.
        dtype: dtype of q, k and v.

    >>> available_backends("cpu")["reference"]
    'ok'
    """
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    return {name: unavailable(name, device.type, dtype) or "ok" for name in BACKENDS}


@functools.cache
def unavailable(name: str, device_type: str, dtype: torch.dtype) -> str | None:
    """Why the backend cannot run on this device with this dtype, or None."""
    if importlib.util.find_spec(BACKENDS[name]) is None:
        return f"this version of diffrgen_kernels has no {name} kernels (no module {BACKENDS[name]})"
    return load(name).unavailable(device_type, dtype)


@functools.cache
def load(name: str) -> Backend:
    """The module of a backend."""
    return cast(Backend, importlib.import_module(BACKENDS[name]))


@functools.cache
def resolve(name: str, device_type: str, dtype: torch.dtype) -> Backend:
    """The backend that computes a call.

    Raises:
        RuntimeError: the backend was named and cannot run; says what is missing.
    """
    if name == "auto":
        name = _first_available(device_type, dtype)
    reason = unavailable(name, device_type, dtype)
    if reason is not None:
        raise RuntimeError(
            f'backend="{name}" cannot run {dtype} on {device_type}: {reason}. '
            'backend="auto" takes the best one that can.'
        )
    return load(name)


def _first_available(device_type: str, dtype: torch.dtype) -> str:
    reasons = {}
    for name in AUTO.get(device_type, ("reference",)):
        reason = unavailable(name, device_type, dtype)
        if reason is None:
            break
        reasons[name] = reason
    if name == "reference" and reasons:
        _warn_once("; ".join(f"{other}: {reason}" for other, reason in reasons.items()))
    return name


@functools.cache
def _warn_once(reasons: str) -> None:
    warnings.warn(f"routed_coattention runs its slow reference, because of {reasons}", stacklevel=2)

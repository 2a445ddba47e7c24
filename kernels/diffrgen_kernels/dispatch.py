"""Which backend computes a call, and why another one cannot."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import warnings
from typing import cast

import torch

from .contract import Backend, MaskSpec

# name -> module that implements contract.Backend; it is imported only when it is asked for
BACKENDS = {
    "reference": f"{__package__}.reference",
    "triton": f"{__package__}.triton_backend",
    "native": f"{__package__}.native",
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


@functools.lru_cache(maxsize=4096)
def resolve(
    name: str, device_type: str, dtype: torch.dtype, spec: MaskSpec, features: frozenset[str] = frozenset()
) -> Backend:
    """The backend that computes a call; `features` are those of contract.FEATURES that it uses.

    Raises:
        RuntimeError: the named backend cannot run or cannot compute the call; names the missing requirement.
        ValueError: there is no backend of that name.
    """
    if name == "auto":
        return load(_first_able(device_type, dtype, spec, features))
    if name not in BACKENDS:
        raise ValueError(f"backend: expected auto, {', '.join(BACKENDS)}, got {name!r}")
    reason = _unable(name, device_type, dtype, spec, features)
    if reason is not None:
        raise RuntimeError(
            f'backend="{name}" cannot run {dtype} on {device_type}: {reason}. '
            'backend="auto" takes the best one that can.'
        )
    return load(name)


def _unable(name: str, device_type: str, dtype: torch.dtype, spec: MaskSpec, features: frozenset[str]) -> str | None:
    return unavailable(name, device_type, dtype) or load(name).unsupported(device_type, spec, features)


def _first_able(device_type: str, dtype: torch.dtype, spec: MaskSpec, features: frozenset[str]) -> str:
    reasons, lacks = {}, False
    for name in AUTO.get(device_type, ("reference",)):
        reason = _unable(name, device_type, dtype, spec, features)
        if reason is None:
            break
        reasons[name] = reason
        lacks = lacks or unavailable(name, device_type, dtype) is None
    if reasons and (lacks or name == "reference"):
        _warn_once(name, "; ".join(f"{other}: {reason}" for other, reason in reasons.items()))
    return name


@functools.cache
def _warn_once(name: str, reasons: str) -> None:
    backend = "its slow reference" if name == "reference" else f"its {name} backend"
    warnings.warn(f"routed_coattention runs {backend}, because of {reasons}", stacklevel=2)

"""How the operator's results are measured against Eq. 5 in float64, for its tests and for `bench/errors.py`."""

from __future__ import annotations

from collections.abc import Callable

import torch
from diffrgen_kernels.contract import MaskSpec, features_of
from diffrgen_kernels.dispatch import load, unavailable
from kernel_cases import Case, dense
from torch import Tensor

NAMES = ("out", "dq", "dk", "dv", "dalpha")
# relative errors of the wide types; 16-bit types are held to eager PyTorch of the same type
BOUNDS = {torch.float64: 1e-13, torch.float32: 2e-6}


def absent(backend: str, device: str, dtype: torch.dtype = torch.float32) -> str | None:
    """Why a backend is not tested on a device, or None."""
    if device == "cuda" and not torch.cuda.is_available():
        return "PyTorch sees no GPU"
    return unavailable(backend, device, dtype)


def unsupported(case: Case, backend: str, device: str) -> str | None:
    """Why a backend does not compute a case on a device, or None."""
    options = case.options_on("cpu")
    spec = MaskSpec(case.grid, case.orders, case.masking == "exclusive", 1.0)
    _, k, _, alpha = case.inputs(torch.float32)
    features = features_of(k, alpha, options.get("centres"), options.get("key_mask"), spec)
    return load(backend).unsupported(device, spec, features)


def results(function: Callable[..., Tensor], inputs: list[Tensor], seed: int = 1) -> list[Tensor]:
    """The output and the gradients of the inputs for a random gradient of the output."""
    out = function(*inputs)
    grad = torch.randn(out.shape, generator=torch.Generator().manual_seed(seed)).to(out)
    return [out.detach(), *torch.autograd.grad(out, inputs, grad)]


def truth_and_eager(case: Case, inputs: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """Eq. 5 in float64, and the same steps in the dtype of the inputs."""
    wide = [x.detach().double().requires_grad_() for x in inputs]
    grad_dtype = inputs[0].dtype
    truth = dense(*wide, case)
    grad = torch.randn(truth.shape, generator=torch.Generator().manual_seed(1)).to(truth.device, grad_dtype)
    exact = [truth.detach(), *torch.autograd.grad(truth, wide, grad.double())]
    return exact, results(lambda *x: dense(*x, case), inputs)


def error(value: Tensor, truth: Tensor, least: float = 0.0) -> float:
    """Relative Frobenius error; where the truth is zero, the root mean square. `least`: what the truth counts as at least."""
    size = max(truth.norm().item(), least) or truth.numel() ** 0.5
    return (value.double() - truth).norm().item() / size


def bound(dtype: torch.dtype, eager: float) -> float:
    """The error that a backend may have where eager PyTorch of that dtype has the error `eager`."""
    return BOUNDS.get(dtype, 2 * eager + torch.finfo(dtype).eps / 2)


def size_of_alpha_terms(case: Case, inputs: list[Tensor]) -> float:
    """The norm of all that is summed to alpha's gradient: rounding errors of a sum are relative to its terms."""
    q, k, v, alpha = (x.detach().double() for x in inputs)
    masks = torch.eye(alpha.shape[-1], dtype=alpha.dtype, device=alpha.device)
    heads = torch.stack([dense(q, k, v, mask.expand_as(alpha), case) for mask in masks])  # (P, B, N, H, D)
    grad = torch.randn(heads.shape[1:], generator=torch.Generator().manual_seed(1)).to(heads.device, inputs[0].dtype)
    return (heads * grad.double()).norm().item()

"""What the operator's tests share: which backends run here, and how their results are measured."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from diffrgen_kernels.contract import MaskSpec, features_of
from diffrgen_kernels.dispatch import BACKENDS, load, unavailable
from kernel_cases import CASES, Case, dense
from torch import Tensor

DEVICES = ("cpu", "cuda")
NAMES = ("out", "dq", "dk", "dv", "dalpha")
BY_NAME = {case.name: case for case in CASES}


def absent(backend: str, device: str, dtype: torch.dtype = torch.float32) -> str | None:
    """Why a backend is not tested on a device, or None."""
    if device == "cuda" and not torch.cuda.is_available():
        return "PyTorch sees no GPU"
    return unavailable(backend, device, dtype)


def unsupported(case: Case, backend: str) -> str | None:
    """Why a backend does not compute a case, or None."""
    options = case.options_on("cpu")
    spec = MaskSpec(case.grid, case.orders, case.masking == "exclusive", 1.0)
    _, k, _, alpha = case.inputs(torch.float32)
    return load(backend).unsupported(spec, features_of(k, alpha, options.get("centres"), options.get("key_mask"), spec))


PAIRS = [(backend, device) for backend in BACKENDS for device in DEVICES]
RUNNABLE = [pair for pair in PAIRS if absent(*pair) is None]
on_every_backend = pytest.mark.parametrize(("backend", "device"), RUNNABLE)


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


def error(value: Tensor, truth: Tensor) -> float:
    """Relative Frobenius error; where the truth is zero, the root mean square."""
    size = truth.norm().item() or truth.numel() ** 0.5
    return (value.double() - truth).norm().item() / size

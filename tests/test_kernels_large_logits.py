"""Real-valued logits of thousands in float32, where the rounding of a logit shows, on the Triton kernels."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from diffrgen_kernels import routed_coattention
from kernel_backends import NAMES, RUNNABLE, error
from kernel_cases import Case, dense, dense_masks, dense_weights
from torch import Tensor

CASES = [
    Case("own", batch=1, rows=45, grid=(7, 7), orders=(1, 0), dim=48),
    Case("own_small", batch=1, rows=45, grid=(7, 7), orders=(1, 0), dim=16),
    Case("shared", batch=1, rows=45, grid=(7, 7), orders=(1, 0), dim=48, shared=True, masking="exclusive"),
    Case("shared_small", batch=1, rows=45, grid=(7, 7), orders=(1, 0), dim=16, shared=True),
    Case(
        "general", batch=1, rows=45, grid=(6, 5), orders=(0, (2, 1)), dim=24, views=2, centres="own", keys="some",
        row_weights=True,
    ),
]  # fmt: skip
on_every_device = pytest.mark.parametrize(("backend", "device"), [pair for pair in RUNNABLE if pair[0] == "triton"])
on_every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def inputs_with_large_logits(case: Case) -> list[Tensor]:
    """Inputs whose logits have a standard deviation of 3000."""
    inputs = case.inputs(torch.float32)
    with torch.no_grad():
        inputs[0] *= 3000
    return inputs


def run(case: Case, backend: str, device: str, rows: Tensor) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Results in float64, of eager float32 and of the backend, for a gradient of the output that is 0 but for some rows."""
    inputs = inputs_with_large_logits(case)
    grad = torch.randn(case.batch, case.rows, case.heads, case.dim, generator=torch.Generator().manual_seed(1))

    def differentiate(function: Callable[..., Tensor], like: Tensor) -> list[Tensor]:
        leaves = [x.detach().to(like).requires_grad_() for x in inputs]
        out = function(*leaves)
        grads = torch.autograd.grad(out, leaves, (grad * rows).to(out))
        return [x.detach().cpu().double() for x in (out * rows.to(out), *grads)]

    exact = differentiate(lambda *x: dense(*x, case), torch.zeros((), dtype=torch.float64))
    eager = differentiate(lambda *x: dense(*x, case), torch.zeros(()))
    options = {**case.options_on(device), "backend": backend}
    found = differentiate(lambda *x: routed_coattention(*x, **options), torch.zeros((), device=device))
    return exact, eager, found


def settled_rows(case: Case) -> Tensor:
    """(B, N, 1, 1): whether the logits have no derivative in any mask and head: one key has all weight, or masked ones have."""
    q, k = (x.detach().double() for x in inputs_with_large_logits(case)[:2])
    weights = dense_weights(q, k, case)[1]  # (B, P, H, N, M)
    inside = dense_masks(case).transpose(0, 1)[:, :, None]  # (B or 1, P, 1, N, M)
    slopes = (weights * (1 - weights) * inside).sum(-1)  # (B, P, H, N)
    return (slopes < 1e-25).all(2).all(1)[:, :, None, None].float()


@on_every_device
@on_every_case
def test_rows_with_one_dominant_key(case: Case, backend: str, device: str) -> None:
    """Their weights are 0 and 1, however their logits are rounded: nothing of the rounding is in any gradient."""
    rows = settled_rows(case)
    assert 0.3 < rows.mean() < 1
    exact, _, found = run(case, backend, device, rows)
    for name, value, true in zip(NAMES, found, exact, strict=True):
        assert error(value, true) <= 1e-6 if name not in ("dq", "dk") else value.norm() <= 1e-9, name


@on_every_device
@on_every_case
def test_all_rows(case: Case, backend: str, device: str) -> None:
    """Where several keys share the weight, all err by the rounding of the logits, eager PyTorch as well."""
    exact, eager, found = run(case, backend, device, torch.ones(()))
    for name, value, plain, true in zip(NAMES, found, eager, exact, strict=True):
        assert error(value, true) <= 8 * error(plain, true) + 2e-6, name

"""Real-valued logits of thousands in float32, where the rounding of a logit shows, on the Triton kernels."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
import torch
from diffrgen_kernels import routed_coattention
from kernel_backends import RUNNABLE
from kernel_cases import Case, dense, dense_masks, dense_weights
from kernel_errors import NAMES, error
from torch import Tensor

CASES = [
    Case("own", batch=1, rows=45, grid=(7, 7), orders=(1, 0), heads=1, dim=48),
    Case("own_small", batch=1, rows=45, grid=(7, 7), orders=(1, 0), heads=1, dim=16),
    Case("shared", batch=1, rows=45, grid=(7, 7), orders=(1, 0), heads=1, dim=48, shared=True, masking="exclusive"),
    Case("shared_small", batch=1, rows=45, grid=(7, 7), orders=(1, 0), heads=1, dim=16, shared=True),
    Case(
        "general", batch=1, rows=45, grid=(6, 5), orders=(0, (2, 1)), heads=1, dim=24, views=2, centres="own", keys="some",
        row_weights=True,
    ),
]  # fmt: skip
on_every_device = pytest.mark.parametrize(("backend", "device"), [pair for pair in RUNNABLE if pair[0] == "triton"])
on_every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def inputs_with_large_logits(case: Case, seed: int = 0) -> list[Tensor]:
    """Inputs whose logits have a standard deviation of 3000."""
    inputs = case.inputs(torch.float32, seed=seed)
    with torch.no_grad():
        inputs[0] *= 3000
    return inputs


def gradient_of_output(case: Case) -> Tensor:
    """(B, N, H, D)."""
    return torch.randn(case.batch, case.rows, case.heads, case.dim, generator=torch.Generator().manual_seed(1))


def run(
    case: Case, backend: str, device: str, rows: Tensor, seed: int = 0
) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Results in float64, of eager float32 and of the backend, for a gradient of the output that is 0 but for some rows."""
    inputs, grad = inputs_with_large_logits(case, seed), gradient_of_output(case)

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


def rounding_of_logits(case: Case, seed: int) -> Tensor:
    """(B, P, H, N, M): how far float32 may move a logit, at 2^-24 for each of its roundings.

    A sum of D products, a scale and a logsumexp are D + 3 roundings, relative to the absolute values of what is summed. They
    are independent, so that their sum grows with the square root of their number, in any order of summation (Higham and
    Mary, 2019, doi:10.1137/18M1226312); were they all alike, it would be D + 3 times one.
    """
    q, k = (x.detach().double().abs() for x in inputs_with_large_logits(case, seed)[:2])
    return torch.einsum("bnphd,bmphd->bphnm", q * case.dim**-0.5, k) * 2.0**-24 * (case.dim + 3) ** 0.5


def moved_by_rounding(case: Case, seed: int, exact: list[Tensor]) -> list[float]:
    """The largest change of each result in float64 when every logit goes up or down by what float32 may move it.

    Most of a norm is of a few rows in which two keys share the weight: of 16 draws, some move the two apart.
    """
    most, signs = rounding_of_logits(case, seed), torch.Generator().manual_seed(2)
    largest = [0.0] * len(exact)
    for _ in range(16):
        change = most * (2 * torch.randint(0, 2, most.shape, generator=signs) - 1)
        leaves = [x.detach().double().requires_grad_() for x in inputs_with_large_logits(case, seed)]
        out = dense(*leaves, case, change)
        moved = [out.detach(), *torch.autograd.grad(out, leaves, gradient_of_output(case).double())]
        largest = [
            max(most, (x - true).norm().item()) for most, x, true in zip(largest, moved, exact, strict=True)
        ]  # fmt: skip
    return largest


def sizes_of_terms(case: Case, seed: int, exact: list[Tensor]) -> list[float]:
    """The norms that other roundings are relative to: of the results, in dq, dk and dalpha without what cancels in t - delta."""
    q, k, v, alpha = (x.detach().double() for x in inputs_with_large_logits(case, seed))
    inside = dense_masks(case).transpose(0, 1)[:, :, None]
    weights = dense_weights(q, k, case)[1]  # (B, P, H, N, M)
    grad, v = gradient_of_output(case).double().abs(), v.abs().expand(-1, -1, len(case.orders), -1, -1)
    t = torch.einsum("bnhd,bmphd->bphnm", grad, v)
    delta = (weights * t).sum(-1, keepdim=True)
    row_alpha = alpha if alpha.dim() == 3 else alpha[:, None].expand(-1, case.rows, -1)
    slopes = row_alpha.transpose(1, 2)[:, :, None, :, None] * weights * inside * (t + delta) * case.dim**-0.5
    k = k.abs().expand(-1, -1, len(case.orders), -1, -1)
    q = q.abs().expand(-1, -1, len(case.orders), -1, -1)
    dq, dk = torch.einsum("bphnm,bmphd->bnphd", slopes, k), torch.einsum("bphnm,bnphd->bmphd", slopes, q)
    return [x.norm().item() for x in (exact[0], dq, dk, exact[3], delta.sum((2, 3, 4)))]


@on_every_device
@on_every_case
@pytest.mark.parametrize("seed", range(int(os.environ.get("DIFFRGEN_SEEDS", "1"))))
def test_all_rows(case: Case, seed: int, backend: str, device: str) -> None:
    """Where several keys share the weight, all err by the rounding of the logits, eager PyTorch as well, and by no more.

    The bound is of the rounding alone, not of what eager makes of it: one row can be most of a norm, and by chance its two
    logits err alike.
    """
    exact, eager, found = run(case, backend, device, torch.ones(()), seed)
    moved, sizes = moved_by_rounding(case, seed, exact), sizes_of_terms(case, seed, exact)
    for name, value, plain, true, most, size in zip(NAMES, found, eager, exact, moved, sizes, strict=True):
        bound = most + 2e-6 * size
        assert (plain - true).norm() <= bound, f"eager {name}"
        assert (value - true).norm() <= bound, name

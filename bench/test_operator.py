"""Throughput of the operator: `pytest --benchmark-only`. Every implementation is checked before it is timed.

Each row shows its time, and beside it (extra_info) the arithmetic it stands for and the tensors it must read and write.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from diffrgen_kernels import available_backends, routed_coattention, routed_coattention_reference
from diffrgen_kernels.contract import Routing
from kernel_cases import BENCH_CASES, Case, dense
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

Operator = Callable[..., Tensor]
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
IMPLEMENTATIONS = ("eager", "compiled", "native", "triton")


def operator(implementation: str, case: Case) -> Operator:
    """The case's call as a function of q, k, v, alpha."""
    if implementation in ("eager", "compiled"):
        scale = case.dim**-0.5 if case.scale is None else case.scale
        routing = Routing(case.grid, case.orders, case.masking == "exclusive", scale)

        def plain(*inputs: Tensor) -> Tensor:
            return routed_coattention_reference(*inputs, routing)

        return plain if implementation == "eager" else torch.compile(plain, fullgraph=True)
    if (reason := available_backends(DEVICE)[implementation]) != "ok":
        pytest.skip(reason)
    return lambda *inputs: routed_coattention(*inputs, **case.options, backend=implementation)


def check(function: Operator, case: Case, inputs: list[Tensor], grad: Tensor) -> None:
    """Output and gradients against Eq. 5 in float64."""
    wide = [x.detach().double().requires_grad_() for x in inputs]
    true, found = dense(*wide, case), function(*inputs)
    pairs = [(found, true)]
    pairs += zip(torch.autograd.grad(found, inputs, grad), torch.autograd.grad(true, wide, grad.double()), strict=True)
    for value, exact in pairs:
        assert (value.double() - exact).norm() <= 2e-6 * exact.norm()


@pytest.mark.parametrize("direction", ["forward", "forward_backward"])
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("case", BENCH_CASES, ids=lambda case: case.name)
def test_operator(benchmark: BenchmarkFixture, case: Case, implementation: str, direction: str) -> None:
    inputs = case.inputs(torch.float32, DEVICE)
    grad = torch.randn(case.batch, case.rows, case.heads, case.dim, device=DEVICE)
    function = operator(implementation, case)
    check(function, case, inputs, grad)
    plain = [x.detach() for x in inputs]

    def step() -> None:
        if direction == "forward":
            function(*plain)
        else:
            torch.autograd.grad(function(*inputs), inputs, grad)
        if DEVICE == "cuda":
            torch.cuda.synchronize()

    patches = case.grid[0] * case.grid[1]
    products = 2 if direction == "forward" else 2 + 5
    moved = sum(x.numel() * x.element_size() for x in (*inputs, grad))
    flops = products * 2 * case.batch * len(case.orders) * case.heads * case.rows * patches * case.dim
    benchmark.group = f"{case.name} {direction}"
    benchmark.extra_info.update(dense_gflop=flops / 1e9, megabytes=moved * (1 if direction == "forward" else 3) / 1e6)
    benchmark(step)

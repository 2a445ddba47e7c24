"""The operator: every backend against Eq. 5 in float64."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from diffrgen_kernels import routed_coattention, window_masks
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kernel_backends import BY_NAME, PAIRS, RUNNABLE, has_small_kernels, on_every_backend
from kernel_cases import CASES, GENERAL_CASES, Case, dense, dense_lse, made_small
from kernel_errors import NAMES, absent, bound, error, results, size_of_alpha_terms, truth_and_eager, unsupported

ROOT = Path(__file__).resolve().parents[1]
DRAWN_CALLS = int(os.environ.get("DIFFRGEN_DRAWN_CALLS", "100"))  # fewer where Triton's interpreter takes its time
DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
# Triton's interpreter takes up to a second a study and head
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
MOST = 2 if INTERPRETED else 3  # studies, heads and views of a drawn call
SMALL = INTERPRETED or os.environ.get("DIFFRGEN_SMALL_CASES") == "1"  # where another run has the cases as they are
PLAIN_CASES, WIDER_CASES = (
    [made_small(case, bands=not INTERPRETED) for case in cases] if SMALL else cases for cases in (CASES, GENERAL_CASES)
)
on_every_case = pytest.mark.parametrize("case", PLAIN_CASES, ids=lambda case: case.name)
on_every_general_case = pytest.mark.parametrize("case", WIDER_CASES, ids=lambda case: case.name)
on_every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: str(dtype).removeprefix("torch."))


@pytest.fixture(autouse=True)
def poisoned_memory() -> Iterator[None]:
    """Fill what torch.empty returns with NaN, so that an element left unwritten shows."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*deterministic")
        yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize(("backend", "device"), [pair for pair in PAIRS if pair not in RUNNABLE])
def test_backend_is_absent(backend: str, device: str) -> None:
    pytest.skip(f"{backend} on {device} is not tested: {absent(backend, device)}")


def check_parity(case: Case, backend: str, device: str, dtype: torch.dtype) -> None:
    """Output and gradients against float64; 16-bit types may err twice as much as eager PyTorch of that dtype.

    In a drawn case alpha's gradient may cancel: it is measured against what it is the sum of.
    """
    if (reason := absent(backend, device, dtype) or unsupported(case, backend, device)) is not None:
        pytest.skip(reason)
    inputs = case.inputs(dtype, device)
    exact, eager = expected_results(case, device, dtype)
    found = results(lambda *x: routed_coattention(*x, **case.options_on(device), backend=backend), inputs)
    sizes = {"dalpha": size_of_alpha_terms(case, inputs)} if case.name == "drawn" else {}
    for name, value, true, plain in zip(NAMES, found, exact, eager, strict=True):
        assert value.dtype == plain.dtype
        distance, limit = error(value, true, sizes.get(name, 0.0)), bound(dtype, error(plain, true))
        assert distance <= limit, f"{name}: {distance:.2e}, at most {limit:.2e}"


@functools.lru_cache(maxsize=2 * len(DTYPES))
def expected_results(case: Case, device: str, dtype: torch.dtype) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """The truth and eager PyTorch's results, once for all backends, which take turns at a case."""
    return truth_and_eager(case, case.inputs(dtype, device))


def without_small_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the triton backend's kernels for large shapes do every shape."""
    from diffrgen_kernels.triton_backend import small

    monkeypatch.setattr(small, "fits", lambda *_: False)


@on_every_dtype
@on_every_backend
@on_every_case
def test_parity(case: Case, backend: str, device: str, dtype: torch.dtype) -> None:
    check_parity(case, backend, device, dtype)


@pytest.mark.parametrize(
    ("case", "backend", "device", "dtype"),
    [
        pytest.param(case, *pair, dtype, id=f"{case.name}-triton-{pair[1]}-{dtype}")
        for case in PLAIN_CASES
        for pair in RUNNABLE
        for dtype in DTYPES
        if pair[0] == "triton" and has_small_kernels(case, dtype)
    ],
)
def test_parity_of_large_shape_kernels(
    case: Case, backend: str, device: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Most cases of the table are small enough for the triton backend's other kernels; `test_parity` has the others here."""
    without_small_kernels(monkeypatch)
    check_parity(case, backend, device, dtype)


@st.composite
def drawn_cases(draw: st.DrawFn) -> Case:
    """A call of any small shape."""
    height, width = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    return Case(
        "drawn",
        batch=draw(st.integers(1, 3)),
        rows=draw(st.integers(1, 90)),
        grid=(height, width),
        orders=tuple(draw(st.lists(st.integers(0, 9), min_size=1, max_size=5))),
        heads=draw(st.integers(1, 3)),
        dim=draw(st.integers(1, 80)),
        shared=draw(st.booleans()),
        masking=draw(st.sampled_from(["multiplicative", "exclusive"])),
        weights=draw(st.sampled_from(["soft", "one_hot", "some_zero"])),
        layout=draw(st.sampled_from(["contiguous", "one_gemm", "transposed", "expanded"])),
    )


@on_every_backend
@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(case=drawn_cases())
def test_parity_of_drawn_shapes(case: Case, backend: str, device: str) -> None:
    check_parity(case, backend, device, torch.float32)


@on_every_backend
@on_every_case
def test_without_gradients(case: Case, backend: str, device: str) -> None:
    check_without_gradients(case, backend, device)


def check_without_gradients(case: Case, backend: str, device: str) -> None:
    inputs = [x.detach() for x in case.inputs(torch.float32, device)]
    found = routed_coattention(*inputs, **case.options_on(device), backend=backend)
    assert error(found, dense(*(x.double() for x in inputs), case)) <= 2e-6


@on_every_dtype
@on_every_backend
@on_every_general_case
def test_parity_of_general_calls(case: Case, backend: str, device: str, dtype: torch.dtype) -> None:
    check_parity(case, backend, device, dtype)


@on_every_backend
@on_every_general_case
def test_lse_and_no_gradients_of_general_calls(case: Case, backend: str, device: str) -> None:
    """The float32 lse against float64, also of masks that alpha weighs with 0; the output is that without lse."""
    if (reason := unsupported(case, backend, device)) is not None:
        pytest.skip(reason)
    check_without_gradients(case, backend, device)
    check_lse(case, backend, device)


@on_every_backend
@on_every_case
def test_lse(case: Case, backend: str, device: str) -> None:
    check_lse(case, backend, device)


def check_lse(case: Case, backend: str, device: str) -> None:
    inputs = [x.detach() for x in case.inputs(torch.float32, device)]
    call = functools.partial(routed_coattention, *inputs, **case.options_on(device), backend=backend)
    out, lse = call(return_lse=True)
    q, k = (x.double() for x in inputs[:2])
    assert error(out, call().double()) <= 2e-6
    torch.testing.assert_close(lse.double(), dense_lse(q, k, case), rtol=2e-6, atol=2e-6)


@st.composite
def drawn_general_cases(draw: st.DrawFn) -> Case:
    """A call of any small shape that may ask for anything."""
    height, width, views = draw(st.integers(1, 6)), draw(st.integers(1, 20)), draw(st.integers(1, MOST))
    order = st.one_of(st.integers(0, 7), st.tuples(st.integers(0, 5), st.integers(0, 7)))
    return Case(
        "drawn",
        batch=draw(st.integers(1, MOST)),
        rows=draw(st.integers(1, 50)),
        grid=(height, width),
        orders=tuple(draw(st.lists(order, min_size=1, max_size=4))),
        heads=draw(st.integers(1, MOST)),
        dim=draw(st.integers(1, 40)),
        shared=draw(st.booleans()),
        masking=draw(st.sampled_from(["multiplicative", "exclusive"])),
        weights=draw(st.sampled_from(["soft", "one_hot", "some_zero"])),
        layout=draw(st.sampled_from(["contiguous", "one_gemm", "transposed", "expanded"])),
        views=views,
        centres=draw(st.sampled_from(["none", "same", "own"])),
        keys=draw(st.sampled_from(["all", "some", "no_study", "first_view"])),
        row_weights=draw(st.booleans()),
    )


@on_every_backend
@settings(max_examples=DRAWN_CALLS, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(case=drawn_general_cases())
def test_parity_of_drawn_general_calls(case: Case, backend: str, device: str) -> None:
    if unsupported(
        Case("all", views=2, centres="own", keys="some", row_weights=True, orders=((0, 1),)), backend, device
    ):
        pytest.skip("it has not every kernel")
    check_parity(case, backend, device, torch.float32)


@pytest.mark.parametrize(("backend", "device"), [pair for pair in RUNNABLE if pair[0] == "triton"])
@pytest.mark.parametrize("case", [case for case in PLAIN_CASES if case.weights != "soft"], ids=lambda case: case.name)
def test_without_gradients_of_large_shape_kernels(
    case: Case, backend: str, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keys that no alpha weighs are not visited."""
    without_small_kernels(monkeypatch)
    check_without_gradients(case, backend, device)


@on_every_backend
def test_by_hand(backend: str, device: str) -> None:
    """Patch values 1, 2, 3, 4 on a 1 x 4 grid; every logit is ln 2, one query row at patch 0.

    Full: all weights 1/4, so 2.5. Window of order 1 = patches 0 and 1: weights 2, 2, 1, 1 over 6, so 13/6;
    exclusive: (1 + 2) / 2.
    """
    log2 = torch.log(torch.tensor(2.0, device=device)).item()
    q = torch.full((1, 1, 2, 1, 1), log2, device=device)
    k = torch.ones(1, 4, 2, 1, 1, device=device)
    v = torch.tensor([1.0, 2.0, 3.0, 4.0], device=device).view(1, 4, 1, 1, 1).repeat(1, 1, 2, 1, 1)
    alpha = torch.tensor([[0.4, 0.6]], device=device)
    for masking, window in (("multiplicative", 13 / 6), ("exclusive", 1.5)):
        out = routed_coattention(
            q, k, v, alpha, grid=(1, 4), orders=(0, 1), masking=masking, scale=1.0, backend=backend
        )
        assert out.item() == pytest.approx(0.4 * 2.5 + 0.6 * window, rel=1e-6)


@pytest.mark.skipif(("native", "cpu") not in RUNNABLE, reason="the extension is not there")
@pytest.mark.parametrize("instructions", ["avx2", "portable"])
def test_other_instruction_sets(instructions: str) -> None:
    """The kernels for processors below this one's, whose code is the same but for its vectors; chosen once a process."""
    selection = "test_parity and native and cpu and not float64"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__, "-k", selection]
    environment = {**os.environ, "DIFFRGEN_CPU": instructions, "DIFFRGEN_SMALL_CASES": "1"}
    run = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout


@pytest.mark.parametrize("dtype", DTYPES[2:], ids=lambda dtype: str(dtype).removeprefix("torch."))
@pytest.mark.parametrize("backend", ["native"])
@pytest.mark.parametrize("device", ["cpu"])
def test_parity_of_every_16_bit_number(backend: str, device: str, dtype: torch.dtype) -> None:
    """Each is read and written exactly; a mean of neighbours is rounded to the nearest one, a tie to the even one."""
    if (reason := absent(backend, device, dtype)) is not None:
        pytest.skip(reason)
    shape = (61, 4, 1, 12, 90)  # 90: whole vectors and a rest, whatever their width
    lower = every_number(dtype, 61 * 12 * 90).view(61, 1, 1, 12, 90)
    upper = torch.nextafter(lower, torch.full_like(lower, torch.inf))
    upper = torch.where(upper.isfinite(), upper, lower)
    q, k, alpha = torch.zeros(shape, dtype=dtype)[:, :1], torch.zeros(shape, dtype=dtype), torch.ones(61, 1)
    for count in range(4):  # upper ones among four keys of the same weight
        v = torch.cat([lower] * (4 - count) + [upper] * count, dim=1).requires_grad_()
        out = routed_coattention(q, k, v, alpha, grid=(2, 2), orders=(0,), backend=backend)
        assert torch.equal(out[:, 0], v.detach().double().mean(dim=1)[:, 0].float().to(dtype))
        (dv,) = torch.autograd.grad(out, v, lower[:, 0])
        assert torch.equal(dv, (lower.double() / 4).float().to(dtype).expand(shape))


def every_number(dtype: torch.dtype, count: int) -> torch.Tensor:
    """The finite numbers of a 16-bit type, some of them twice; without those whose parts float32 cannot hold."""
    numbers = torch.arange(-(2**15), 2**15).to(torch.int16).view(dtype)
    sizes = numbers.float().abs()
    kept = numbers[(sizes == 0) | (sizes > 1e-30) & sizes.isfinite()]
    return torch.cat([kept, kept])[:count]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=lambda dtype: str(dtype).removeprefix("torch."))
@pytest.mark.parametrize("name", ["three_masks", "exclusive", "shared_projections", "many_patches"])
def test_largest_values(name: str, dtype: torch.dtype) -> None:
    """Values of one sign near the largest number: their sums over keys have no float32, results and gradients have."""
    if (reason := absent("native", "cpu", dtype)) is not None:
        pytest.skip(reason)
    case = BY_NAME[name]
    q, k, v, alpha = (x.detach() for x in case.inputs(dtype))
    v = (v.sigmoid() / 2 + 0.5) * (0.99 * torch.finfo(dtype).max)

    def run(backend: str, *inputs: torch.Tensor) -> list[torch.Tensor]:
        leaves = [x.requires_grad_() for x in inputs]
        out = routed_coattention(*leaves, **case.options, backend=backend)
        grad = 1e-6 * torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
        return [out, *torch.autograd.grad(out, leaves, grad.to(dtype).to(out.dtype))]

    exact = run("reference", *(x.double() for x in (q, k, v, alpha)))
    for what, value, true in zip(NAMES, run("native", q, k, v, alpha), exact, strict=True):
        assert value.isfinite().all(), what
        assert error(value, true) <= (1e-5 if dtype == torch.float32 else 1e-2), what


@pytest.mark.parametrize("case", GENERAL_CASES[:3] + CASES[:3], ids=lambda case: case.name)
@on_every_backend
def test_several_threads(case: Case, backend: str, device: str) -> None:
    """The suite may run with one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        check_parity(case, backend, device, torch.float32)
    finally:
        torch.set_num_threads(before)


def test_masks_by_hand() -> None:
    masks = window_masks((2, 3), (0, 1), 7).int()
    assert masks[0].tolist() == [[1] * 6] * 7
    corner, middle = [1, 1, 0, 1, 1, 0], [1, 1, 1, 1, 1, 1]
    right = [0, 1, 1, 0, 1, 1]
    assert masks[1].tolist() == [corner, middle, right, corner, middle, right, corner]


@on_every_backend
def test_repeats_bitwise(backend: str, device: str) -> None:
    inputs = BY_NAME["dim_64"].inputs(torch.float32, device)
    options = BY_NAME["dim_64"].options
    first, second = (results(lambda *x: routed_coattention(*x, **options, backend=backend), inputs) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@on_every_backend
@pytest.mark.parametrize("name", ["three_masks", "shared_projections", "exclusive", "one_patch"])
def test_gradcheck(name: str, backend: str, device: str) -> None:
    if (reason := absent(backend, device, torch.float64)) is not None:
        pytest.skip(reason)
    case = Case(name, rows=4, grid=(2, 3), dim=3, orders=BY_NAME[name].orders, shared=BY_NAME[name].shared)
    inputs = case.inputs(torch.float64, device)
    assert torch.autograd.gradcheck(lambda *x: routed_coattention(*x, **case.options, backend=backend), inputs)

"""The operator: every backend against Eq. 5 in float64, and its registration with PyTorch."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from diffrgen_kernels import available_backends, routed_coattention, routed_coattention_reference, window_masks
from diffrgen_kernels.contract import Routing
from diffrgen_kernels.dispatch import BACKENDS, resolve, unavailable
from kernel_cases import CASES, Case, dense
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend
from torch.utils.flop_counter import FlopCounterMode

ROOT = Path(__file__).resolve().parents[1]
DEVICES = ("cpu", "cuda")
DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
NAMES = ("out", "dq", "dk", "dv", "dalpha")
BY_NAME = {case.name: case for case in CASES}


def _reason(backend: str, device: str, dtype: torch.dtype = torch.float32) -> str | None:
    if device == "cuda" and not torch.cuda.is_available():
        return "PyTorch sees no GPU"
    return unavailable(backend, device, dtype)


RUNNABLE = [(backend, device) for backend in BACKENDS for device in DEVICES if _reason(backend, device) is None]
on_every_backend = pytest.mark.parametrize(("backend", "device"), RUNNABLE)
on_every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


@pytest.fixture(autouse=True)
def poisoned_memory() -> Iterator[None]:
    """Fill what torch.empty returns with NaN, so that an element left unwritten shows."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*deterministic")
        yield
    torch.use_deterministic_algorithms(False)


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


@pytest.mark.parametrize(("backend", "device"), [(b, d) for b in BACKENDS for d in DEVICES if (b, d) not in RUNNABLE])
def test_backend_is_absent(backend: str, device: str) -> None:
    pytest.skip(f"{backend} on {device} is not tested: {_reason(backend, device)}")


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: str(dtype).removeprefix("torch."))
@on_every_backend
@on_every_case
def test_parity(case: Case, backend: str, device: str, dtype: torch.dtype) -> None:
    if (reason := _reason(backend, device, dtype)) is not None:
        pytest.skip(reason)
    inputs = case.inputs(dtype, device)
    exact, eager = truth_and_eager(case, inputs)
    found = results(lambda *x: routed_coattention(*x, **case.options, backend=backend), inputs)
    for name, value, true, plain in zip(NAMES, found, exact, eager, strict=True):
        bound = {torch.float64: 1e-13, torch.float32: 2e-6}.get(dtype)
        if bound is None:
            bound = 2 * error(plain, true) + torch.finfo(dtype).eps / 2
        assert value.dtype == plain.dtype
        assert error(value, true) <= bound, f"{name}: {error(value, true):.2e}, at most {bound:.2e}"


@on_every_backend
@on_every_case
def test_without_gradients(case: Case, backend: str, device: str) -> None:
    inputs = [x.detach() for x in case.inputs(torch.float32, device)]
    found = routed_coattention(*inputs, **case.options, backend=backend)
    assert error(found, dense(*(x.double() for x in inputs), case)) <= 2e-6


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
    """The kernels for processors below this one's; the choice is made once a process."""
    selection = "test_parity and native and cpu and (float32 or bfloat16)"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__, "-k", selection]
    environment = {**os.environ, "DIFFRGEN_CPU": instructions}
    run = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout


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
    if (reason := _reason(backend, device, torch.float64)) is not None:
        pytest.skip(reason)
    case = Case(name, rows=4, grid=(2, 3), dim=3, orders=BY_NAME[name].orders, shared=BY_NAME[name].shared)
    inputs = case.inputs(torch.float64, device)
    assert torch.autograd.gradcheck(lambda *x: routed_coattention(*x, **case.options, backend=backend), inputs)


@on_every_backend
@pytest.mark.parametrize("shared", [False, True])
def test_opcheck(shared: bool, backend: str, device: str) -> None:
    case = Case("opcheck", shared=shared)
    inputs = case.inputs(torch.float32, device)
    routing = (case.grid, case.orders, False, 0.25)
    torch.library.opcheck(torch.ops.diffrgen.routed_coattention, (*inputs, *routing, True, backend))
    plain = [x.detach() for x in inputs]
    torch.library.opcheck(torch.ops.diffrgen.routed_coattention, (*plain, *routing, False, backend))
    _, lse = torch.ops.diffrgen.routed_coattention(*plain, *routing, True, backend)
    grad = torch.randn(case.batch, case.rows, case.heads, case.dim, device=device)
    torch.library.opcheck(torch.ops.diffrgen.routed_coattention_backward, (grad, *plain, lse, *routing, backend))


@on_every_backend
def test_compiles_once_for_all_rows(backend: str, device: str) -> None:
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(routed_coattention, fullgraph=True, backend=counter)
    for rows in (5, 12, 29, 7):
        case = Case("compiled", rows=rows)
        inputs = case.inputs(torch.float32, device)
        torch._dynamo.mark_dynamic(inputs[0], 1)
        found = results(lambda *x, case=case: compiled(*x, **case.options, backend=backend), inputs)
        exact, _ = truth_and_eager(case, inputs)
        assert all(error(a, b) <= 2e-6 for a, b in zip(found, exact, strict=True))
    assert counter.frame_count == 1


@on_every_backend
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast(dtype: torch.dtype, backend: str, device: str) -> None:
    if (reason := _reason(backend, device, dtype)) is not None:
        pytest.skip(reason)
    case = Case("autocast")
    inputs = case.inputs(torch.float32, device)
    narrow = [x.detach().to(dtype) for x in inputs[:3]]
    with torch.autocast(device, dtype=dtype):
        out = routed_coattention(*inputs, **case.options, backend=backend)
        mixed = routed_coattention(inputs[0], *narrow[1:], inputs[3].to(dtype), **case.options, backend=backend)
    assert mixed.dtype == dtype
    assert torch.equal(out, routed_coattention(*narrow, inputs[3], **case.options, backend=backend))
    out.float().sum().backward()
    assert [x.grad.dtype for x in inputs] == [torch.float32] * 4


def test_autocast_leaves_float64() -> None:
    case = Case("autocast")
    inputs = case.inputs(torch.float64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = routed_coattention(*inputs, **case.options, backend="reference")
    assert torch.equal(out, routed_coattention(*inputs, **case.options, backend="reference"))


def test_second_derivative_is_refused() -> None:
    case = Case("second")
    inputs = case.inputs(torch.float32)
    out = routed_coattention(*inputs, **case.options, backend="reference")
    (dq,) = torch.autograd.grad(out.sum(), inputs[:1], create_graph=True)
    with pytest.raises(RuntimeError, match="first derivatives only"):
        dq.sum().backward()


def test_reference_function_has_second_derivatives() -> None:
    case = Case("second", rows=2, grid=(1, 2), heads=1, dim=2, batch=1)
    routing = Routing(case.grid, case.orders, False, 0.5)
    assert torch.autograd.gradgradcheck(
        lambda *x: routed_coattention_reference(*x, routing), case.inputs(torch.float64)
    )


def test_flop_counter() -> None:
    case = Case("flops")
    with FlopCounterMode(display=False) as counter:
        routed_coattention(*case.inputs(torch.float32), **case.options, backend="reference").sum().backward()
    product = 2 * case.batch * case.heads * len(case.orders) * case.rows * 12 * case.dim
    assert counter.get_total_flops() == (2 + 5) * product


def changed(**changes: object) -> dict[str, object]:
    q, k, v, alpha = (x.detach() for x in Case("bad").inputs(torch.float32))
    return {"q": q, "k": k, "v": v, "alpha": alpha, "grid": (3, 4), "orders": (0, 1), **changes}


BAD = {
    "q_has_4_axes": ({"q": torch.zeros(2, 5, 2, 16)}, r"q: expected shape \(B, N, P, H, D\), got \(2, 5, 2, 16\)"),
    "k_has_6_axes": ({"k": torch.zeros(2, 12, 2, 2, 16, 1)}, r"k: expected shape \(B, M, P, H, D\), got"),
    "v_has_4_axes": ({"v": torch.zeros(2, 12, 2, 16)}, r"v: expected shape"),
    "alpha_has_1_axis": ({"alpha": torch.zeros(2)}, r"alpha: expected shape \(B, P\), got \(2,\)"),
    "no_rows": ({"q": torch.zeros(2, 0, 2, 2, 16)}, r"q: expected at least one element .* \(2, 0, 2, 2, 16\)"),
    "v_unlike_k": ({"v": torch.zeros(2, 11, 2, 2, 16)}, r"v: expected the shape of k, .* got \(2, 11, 2, 2, 16\)"),
    "batch": ({"q": torch.zeros(3, 5, 2, 2, 16)}, r"k: expected \(3, M, 2, 2, 16\) to match q, got"),
    "heads": ({"q": torch.zeros(2, 5, 2, 3, 16)}, r"k: expected \(2, M, 2, 3, 16\)"),
    "head_dim": ({"q": torch.zeros(2, 5, 2, 2, 8)}, r"k: expected \(2, M, 2, 2, 8\)"),
    "one_shared_only": ({"q": torch.zeros(2, 5, 1, 2, 16)}, r"k: expected \(2, M, 1, 2, 16\)"),
    "alpha_batch": ({"alpha": torch.zeros(3, 2)}, r"alpha: expected the batch size of q, 2, got 3"),
    "alpha_length": (
        {"alpha": torch.zeros(2, 3), "orders": (0, 1, 2)},
        r"P axis \(2\) to be alpha's 3 masks or 1 .* got 2",
    ),
    "orders_length": ({"orders": (0,)}, r"orders: expected 2 orders, .* got \(0,\)"),
    "negative_order": ({"orders": (0, -1)}, r"orders >= 0 .* got \(0, -1\)"),
    "grid_length": ({"grid": (12,)}, r"grid: expected \(gh, gw\), got \(12,\)"),
    "grid_is_not_m": ({"grid": (3, 5)}, r"gh \* gw = M = 12 .* got \(3, 5\)"),
    "grid_negative": ({"grid": (-3, -4)}, r"gh \* gw = M = 12 .* got \(-3, -4\)"),
    "dtype_mix": (
        {"k": torch.zeros(2, 12, 2, 2, 16).half()},
        r"k: expected the dtype of q, torch.float32, got torch.float16",
    ),
    "dtype_int": ({"q": torch.zeros(2, 5, 2, 2, 16).int()}, r"q: expected dtype .* got torch.int32"),
    "alpha_dtype": ({"alpha": torch.zeros(2, 2).half()}, r"alpha: expected torch.float32 .* got torch.float16"),
    "device_mix": ({"v": torch.zeros(2, 12, 2, 2, 16, device="meta")}, r"v: expected the device of q, cpu, got meta"),
    "masking": ({"masking": "additive"}, r"masking: expected one of multiplicative, exclusive, got 'additive'"),
    "scale": ({"scale": float("nan")}, r"scale: expected a finite number .* got nan"),
    "backend": ({"backend": "cudnn"}, r"backend: expected auto, reference, triton, native, got 'cudnn'"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name: str) -> None:
    changes, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        routed_coattention(**changed(**changes))


def test_head_dim_is_limited() -> None:
    q, k = torch.zeros(1, 1, 1, 1, 257), torch.zeros(1, 1, 1, 1, 257)
    with pytest.raises(ValueError, match=r"head dimension D of at most 256, got 257"):
        routed_coattention(q, k, k, torch.ones(1, 1), grid=(1, 1), orders=(0,))


def test_named_backend_refuses_aloud(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BACKENDS, "triton", "diffrgen_kernels.no_such_module")
    _forget()
    with pytest.raises(RuntimeError, match=r'backend="triton" cannot run torch.float32 on cpu: .*no triton kernels'):
        routed_coattention(**changed(backend="triton"))
    assert available_backends("cpu")["reference"] == "ok"
    assert "no_such_module" in available_backends("cpu")["triton"]
    _forget()


def test_auto_warns_once_where_it_is_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BACKENDS, "native", "diffrgen_kernels.no_such_module")
    _forget()
    with pytest.warns(UserWarning, match="runs its slow reference, because of native: .*no native kernels"):
        routed_coattention(**changed())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        routed_coattention(**changed())
        routed_coattention(*Case("float64").inputs(torch.float64), **Case("float64").options)
    _forget()


def _forget() -> None:
    unavailable.cache_clear()
    resolve.cache_clear()


def test_kernels_folder_is_no_package() -> None:
    """With Hugging Face's `kernels` installed, a package of that name here would break `import transformers`."""
    assert not (ROOT / "kernels" / "__init__.py").exists()
    subprocess.run([sys.executable, "-c", "import transformers, transformers.modeling_utils"], cwd=ROOT, check=True)


def test_import_has_no_side_effect() -> None:
    code = "import sys, diffrgen_kernels; print(sorted({'triton', 'diffrgen_kernels.native'} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT / "kernels", check=True, capture_output=True, text=True)
    assert (run.stdout, run.stderr) == ("[]\n", "")

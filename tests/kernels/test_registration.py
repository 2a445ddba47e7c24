"""The operator's registration with PyTorch, what it refuses, and how a backend is chosen."""

from __future__ import annotations

import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffrgen_kernels import available_backends, routed_coattention, routed_coattention_reference
from diffrgen_kernels.contract import lacking
from diffrgen_kernels.dispatch import BACKENDS, _warn_once, load, resolve, unavailable
from kernel_backends import on_every_backend
from kernel_cases import Case, dense_lse
from kernel_errors import absent, error, results, truth_and_eager, unsupported
from torch._dynamo.testing import CompileCounterWithBackend
from torch.utils.flop_counter import FlopCounterMode

ROOT = Path(__file__).resolve().parents[2]


@on_every_backend
@pytest.mark.parametrize("shared", [False, True])
def test_opcheck(shared: bool, backend: str, device: str) -> None:
    case = Case("opcheck", shared=shared)
    inputs = case.inputs(torch.float32, device)
    spec = (case.grid, [-1, -1, 1, 1], False, 0.25)
    inputs += [None, None]
    torch.library.opcheck(torch.ops.diffrgen.routed_coattention, (*inputs, *spec, True, False, backend))
    plain = [x if x is None else x.detach() for x in inputs]
    torch.library.opcheck(torch.ops.diffrgen.routed_coattention, (*plain, *spec, False, False, backend))
    _, lse = torch.ops.diffrgen.routed_coattention(*plain, *spec, True, False, backend)
    grad = torch.randn(case.batch, case.rows, case.heads, case.dim, device=device)
    torch.library.opcheck(torch.ops.diffrgen.routed_coattention_backward, (grad, *plain, lse, *spec, False, backend))


GENERAL = Case("general", views=2, centres="own", keys="some", row_weights=True, orders=((0, 1), 0))


@on_every_backend
def test_opcheck_of_a_general_call(backend: str, device: str) -> None:
    if (reason := unsupported(GENERAL, backend, device)) is not None:
        pytest.skip(reason)
    options = GENERAL.options_on(device)
    inputs = [*GENERAL.inputs(torch.float32, device), options["centres"], options["key_mask"]]
    spec = (GENERAL.grid, [0, 1, -1, -1], True, 0.25)
    torch.library.opcheck(torch.ops.diffrgen.routed_coattention, (*inputs, *spec, True, True, backend))
    plain = [x.detach() for x in inputs]
    _, lse = torch.ops.diffrgen.routed_coattention(*plain, *spec, False, True, backend)
    grad = torch.randn(GENERAL.batch, GENERAL.rows, GENERAL.heads, GENERAL.dim, device=device)
    torch.library.opcheck(torch.ops.diffrgen.routed_coattention_backward, (grad, *plain, lse, *spec, True, backend))


@on_every_backend
def test_general_call_compiles_once_for_all_sizes(backend: str, device: str) -> None:
    """Another number of rows and of studies; lse too."""
    if (reason := unsupported(GENERAL, backend, device)) is not None:
        pytest.skip(reason)
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(routed_coattention, fullgraph=True, backend=counter)
    for batch, rows in ((2, 5), (3, 12), (4, 29), (2, 7)):
        case = replace(GENERAL, batch=batch, rows=rows)
        inputs, options = case.inputs(torch.float32, device), case.options_on(device)
        for x in (*inputs, options["centres"], options["key_mask"]):
            torch._dynamo.mark_dynamic(x, 0)
        for x in (inputs[0], inputs[3], options["centres"]):
            torch._dynamo.mark_dynamic(x, 1)
        lses = []

        def call(*x: torch.Tensor, options=options, lses=lses) -> torch.Tensor:
            out, lse = compiled(*x, **options, backend=backend, return_lse=True)
            lses.append(lse)
            return out

        found = results(call, inputs)
        exact, _ = truth_and_eager(case, inputs)
        assert all(error(a, b) <= 2e-6 for a, b in zip(found, exact, strict=True))
        truth = dense_lse(inputs[0].double(), inputs[1].double(), case)
        torch.testing.assert_close(lses[0].double(), truth, rtol=2e-6, atol=2e-6)
    assert counter.frame_count == 1


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
    if (reason := absent(backend, device, dtype)) is not None:
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


@on_every_backend
def test_batch_of_gradients(backend: str, device: str) -> None:
    """autograd.grad with is_grads_batched asks for several gradients of the output of a plain call at once."""
    case = Case("batch_of_gradients")
    inputs = case.inputs(torch.float32, device)
    out = routed_coattention(*inputs, **case.options, backend=backend)
    grads = torch.randn(3, *out.shape, generator=torch.Generator().manual_seed(1)).to(out)
    found = torch.autograd.grad(out, inputs, grads, retain_graph=True, is_grads_batched=True)
    for i, grad in enumerate(grads):
        wanted = torch.autograd.grad(out, inputs, grad, retain_graph=True)
        torch.testing.assert_close([x[i] for x in found], list(wanted), rtol=1e-5, atol=1e-6)


def test_reference_function_has_second_derivatives() -> None:
    case = Case("second", rows=2, grid=(1, 2), heads=1, dim=2, batch=1)
    assert torch.autograd.gradgradcheck(
        lambda *x: routed_coattention_reference(*x, **case.options), case.inputs(torch.float64)
    )


def test_flop_counter() -> None:
    case = Case("flops")
    with FlopCounterMode(display=False) as counter:
        routed_coattention(*case.inputs(torch.float32), **case.options, backend="reference").sum().backward()
    product = 2 * case.batch * case.heads * len(case.orders) * case.rows * 12 * case.dim
    assert counter.get_total_flops() == (2 + 5) * product


@on_every_backend
def test_saves_little_for_backward(backend: str, device: str) -> None:
    """Beyond inputs and output: at most 4 bytes for each mask, head and row, and for each mask, head and dim."""
    case = Case("saved", rows=50, grid=(9, 10), orders=(0, 1, 2), dim=24)
    inputs = case.inputs(torch.float32, device)
    saved: dict[int, int] = {}
    with torch.autograd.graph.saved_tensors_hooks(
        lambda x: saved.update({x.data_ptr(): x.untyped_storage().nbytes()}) or x, lambda x: x
    ):
        out = routed_coattention(*inputs, **case.options, backend=backend)
    beyond = sum(size for address, size in saved.items() if address not in {x.data_ptr() for x in (*inputs, out)})
    assert beyond <= 4 * case.batch * case.heads * len(case.orders) * (case.rows + case.dim)


@pytest.mark.parametrize("rows", [21, 100])
@on_every_backend
def test_cuda_graph(backend: str, device: str, rows: int) -> None:
    if device != "cuda" or backend == "reference":
        pytest.skip("graphs capture the kernels of a GPU")
    case = Case("graph", rows=rows, grid=(10, 10) if rows == 100 else (7, 7), orders=(0, 1), dim=64)
    inputs = case.inputs(torch.float32, device)
    grad = torch.randn(case.batch, rows, case.heads, case.dim, generator=torch.Generator().manual_seed(1)).to(device)

    def step() -> list[torch.Tensor]:
        out = routed_coattention(*inputs, **case.options, backend=backend)
        return [out, *torch.autograd.grad(out, inputs, grad)]

    step()  # compiles the kernels
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    with torch.no_grad():
        for x in inputs[:3]:
            x.copy_(torch.randn_like(x))
    graph.replay()
    exact, _ = truth_and_eager(case, inputs)
    assert all(error(a, b) <= 2e-6 for a, b in zip(captured, exact, strict=True))


def changed(**changes: object) -> dict[str, object]:
    q, k, v, alpha = (x.detach() for x in Case("bad").inputs(torch.float32))
    return {"q": q, "k": k, "v": v, "alpha": alpha, "grid": (3, 4), "orders": (0, 1), **changes}


BAD = {
    "q_has_4_axes": ({"q": torch.zeros(2, 5, 2, 16)}, r"q: expected shape \(B, N, P, H, D\), got \(2, 5, 2, 16\)"),
    "k_has_6_axes": ({"k": torch.zeros(2, 12, 2, 2, 16, 1)}, r"k: expected shape \(B, M, P, H, D\), got"),
    "v_has_4_axes": ({"v": torch.zeros(2, 12, 2, 16)}, r"v: expected shape"),
    "alpha_has_1_axis": ({"alpha": torch.zeros(2)}, r"alpha: expected shape \(B, P\) or \(B, N, P\), got \(2,\)"),
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
    "grid_is_a_number": ({"grid": 12}, r"grid: expected \(gh, gw\), got 12"),
    "grid_of_floats": ({"grid": (3.0, 4)}, r"grid: expected two whole numbers \(gh, gw\), got \(3.0, 4\)"),
    "orders_is_a_number": ({"orders": 1}, r"orders: expected a sequence of orders >= 0 .* got 1"),
    "orders_of_floats": ({"orders": (0, 1.5)}, r"orders: expected orders >= 0 .* got \(0, 1.5\)"),
    "orders_of_triples": ({"orders": (0, (1, 2, 3))}, r"orders: expected .* pairs \(height, width\) .* got"),
    "negative_pair": ({"orders": (0, (1, -1))}, r"orders: expected .* pairs \(height, width\) >= 0, got"),
    "rows_of_alpha": (
        {"alpha": torch.zeros(2, 4, 2)},
        r"alpha: expected \(2, 5, P\) with the rows of q, got \(2, 4, 2\)",
    ),
    "centres_shape": ({"centres": torch.zeros(2, 4).long()}, r"centres: expected shape \(2 or 1, 5\) .* got \(2, 4\)"),
    "centres_dtype": ({"centres": torch.zeros(2, 5)}, r"centres: expected int64 or int32, got torch.float32"),
    "centres_range": (
        {"centres": torch.tensor([[0, 1, 2, -1, 12]])},
        r"centres: expected patch numbers from 0 to gh \* gw - 1 = 11, got -1 to 12",
    ),
    "centres_list": ({"centres": [0, 1]}, r"centres: expected a tensor, got list"),
    "key_mask_shape": (
        {"key_mask": torch.ones(2, 11).bool()},
        r"key_mask: expected shape \(B, M\) = \(2, 12\), got \(2, 11\)",
    ),
    "key_mask_dtype": ({"key_mask": torch.ones(2, 12)}, r"key_mask: expected torch.bool .* got torch.float32"),
    "q_is_no_tensor": ({"q": [1.0]}, r"q: expected a tensor, got list"),
    "sparse": ({"v": torch.zeros(2, 12, 2, 2, 16).to_sparse()}, r"v: expected a dense tensor .* got torch.sparse_coo"),
    "scale_is_a_word": ({"scale": "1"}, r"scale: expected a finite number .* got '1'"),
    "grid_negative": ({"grid": (-3, -4)}, r"grid: expected \(gh, gw\), both at least 1, got \(-3, -4\)"),
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


def test_named_backend_refuses_what_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A backend without kernels for centres: named it refuses, auto passes it by and says so once."""
    monkeypatch.setattr(load("native"), "unavailable", lambda *_: None)
    monkeypatch.setattr(load("native"), "unsupported", lambda device, spec, features: lacking(features, ("views",)))
    _forget()
    centres = torch.zeros(1, 5, dtype=torch.int64)
    with pytest.raises(RuntimeError, match=r'backend="native" cannot run .*: it has no kernels for centres\. '):
        routed_coattention(**changed(backend="native", centres=centres))
    with pytest.warns(UserWarning, match="runs its slow reference, because of native: it has no kernels for centres"):
        found = routed_coattention(**changed(centres=centres))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        routed_coattention(**changed(centres=centres))
    assert torch.equal(found, routed_coattention(**changed(centres=centres, backend="reference")))
    _forget()


def _forget() -> None:
    _warn_once.cache_clear()
    unavailable.cache_clear()
    resolve.cache_clear()


def test_kernels_folder_is_no_package() -> None:
    """With Hugging Face's `kernels` installed, a package of that name here would break `import transformers`."""
    assert not (ROOT / "kernels" / "__init__.py").exists()
    subprocess.run([sys.executable, "-c", "import transformers, transformers.modeling_utils"], cwd=ROOT, check=True)


def test_import_has_no_side_effect() -> None:
    code = "import sys, diffrgen_kernels; print([m for m in sys.modules if m.startswith('diffrgen_kernels.')])"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT / "kernels", check=True, capture_output=True, text=True)
    loaded = run.stdout
    assert "triton_backend" not in loaded
    assert "native" not in loaded
    assert run.stderr == ""

"""Faults of 0.1 in the operator, a kind a test: dtypes under autocast, direct calls, torch.func, forward mode, no studies."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffrgen_kernels import routed_coattention, routed_coattention_reference
from diffrgen_kernels.dispatch import unavailable
from kernel_backends import on_every_backend
from kernel_cases import Case, dense
from kernel_errors import error
from torch import Tensor

CASE = Case("fault", dim=8)
GENERAL = Case("general", views=2, centres="same", keys="some", row_weights=True, orders=((0, 1), 1), dim=8)
has_extension = pytest.mark.skipif(
    unavailable("native", "cpu", torch.float32) is not None, reason="there is no extension"
)


def plain_inputs(case: Case = CASE, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    return [x.detach() for x in case.inputs(dtype)]


def operator_of(case: Case, backend: str) -> Callable[..., Tensor]:
    return functools.partial(routed_coattention, **case.options_on("cpu"), backend=backend)


MIXED = {
    "keys_float32": lambda q, k, v, a: (q, k.float(), v.float(), a),
    "keys_bfloat16": lambda q, k, v, a: (q, k.bfloat16(), v.bfloat16(), a),
    "values_float16": lambda q, k, v, a: (q.float(), k.float(), v.half(), a),
    "alpha_float32": lambda q, k, v, a: (q, k, v, a.float()),
    "alpha_float16": lambda q, k, v, a: (q.float(), k.float(), v.float(), a.half()),
    "queries_float16": lambda q, k, v, a: (q.half(), k, v, a),
}


@on_every_backend
@pytest.mark.parametrize("name", MIXED)
def test_autocast_brings_all_to_one_dtype(name: str, backend: str, device: str) -> None:
    """Mixed dtypes give what Eq. 5 gives, to the precision of the narrowest of them, and gradients of their own dtypes."""
    inputs = [x.to(device).requires_grad_() for x in MIXED[name](*plain_inputs())]
    with torch.autocast(device, dtype=torch.bfloat16):
        call = functools.partial(routed_coattention, *inputs, **CASE.options)
        out = call(backend=backend) if all(x.dtype != torch.float64 for x in inputs) else call()
    assert error(out.detach(), dense(*(x.detach().double() for x in inputs), CASE)) < 0.02
    grads = torch.autograd.grad(out.float().sum(), inputs)
    assert [x.dtype for x in grads] == [x.dtype for x in inputs]


def test_autocast_checks_too() -> None:
    q, k, v, alpha = plain_inputs(dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        with pytest.raises(ValueError, match=r"k: expected dtype .* got torch.int64"):
            routed_coattention(q, k.long(), v, alpha, **CASE.options)
        with pytest.raises(ValueError, match=r"k: expected \(2, M, 2, 2, 8\)"):
            routed_coattention(q, k[..., :4], v[..., :4], alpha, **CASE.options)


SPEC = ([3, 4], [-1, -1, 1, 1], False, 0.5)
WINDOWS = [2, 3, 1, 1]


def direct(**changes: Any) -> dict[str, Any]:
    """The arguments of a direct call of forward, of the Python op and of the extension's."""
    q, k, v, alpha = plain_inputs(dtype=torch.float32)
    return {"q": q, "k": k, "v": v, "alpha": alpha, "centres": None, "key_mask": None, "grid": SPEC[0], **changes}


def empty(*shape: int, **options: Any) -> Tensor:
    return torch.zeros(shape, **options)


WRONG = {
    "alpha_float16": {"alpha": empty(2, 2, dtype=torch.float16)},
    "alpha_float64": {"alpha": empty(2, 2, dtype=torch.float64)},
    "alpha_of_another_batch": {"alpha": empty(1, 2)},
    "alpha_of_other_rows": {"alpha": empty(2, 4, 2)},
    "alpha_of_one_axis": {"alpha": empty(2)},
    "no_heads": {"q": empty(2, 5, 2, 0, 8), "k": empty(2, 12, 2, 0, 8), "v": empty(2, 12, 2, 0, 8)},
    "no_columns": {"q": empty(2, 5, 2, 2, 0), "k": empty(2, 12, 2, 2, 0), "v": empty(2, 12, 2, 2, 0)},
    "no_rows": {"q": empty(2, 0, 2, 2, 8)},
    "no_keys": {"k": empty(2, 0, 2, 2, 8), "v": empty(2, 0, 2, 2, 8), "grid": [0, 4]},
    "no_masks": {"alpha": empty(2, 0), "windows": []},
    "keys_shared_alone": {"k": empty(2, 12, 1, 2, 8), "v": empty(2, 12, 1, 2, 8)},
    "values_shared_alone": {"v": empty(2, 12, 1, 2, 8)},
    "queries_shared_alone": {"q": empty(2, 5, 1, 2, 8)},
    "keys_of_another_batch": {"k": empty(1, 12, 2, 2, 8), "v": empty(1, 12, 2, 2, 8)},
    "fewer_values": {"v": empty(2, 11, 2, 2, 8)},
    "keys_float64": {"k": empty(2, 12, 2, 2, 8, dtype=torch.float64)},
    "values_bfloat16": {"v": empty(2, 12, 2, 2, 8, dtype=torch.bfloat16)},
    "all_int32": {name: empty(2, rows, 2, 2, 8, dtype=torch.int32) for name, rows in (("q", 5), ("k", 12), ("v", 12))},
    "wide_heads": {name: empty(2, rows, 2, 2, 257) for name, rows in (("q", 5), ("k", 12), ("v", 12))},
    "negative_windows": {"windows": [1, 1, -2, 1]},
    "too_few_windows": {"windows": [1, 1]},
    "odd_windows": {"windows": [1, 1, 1]},
    "grid_of_one": {"grid": [12]},
    "grid_of_zeros": {"grid": [0, 0]},
    "grid_negative": {"grid": [-3, -4]},
    "grid_that_overflows": {"grid": [2**62, 4]},
    "grid_that_does_not_divide": {"grid": [5, 2]},
    "centres_outside": {"centres": torch.tensor([[0, 1, 2, 3, 12]])},
    "centres_negative": {"centres": torch.tensor([[0, 1, 2, 3, -1]])},
    "centres_of_other_rows": {"centres": empty(2, 4, dtype=torch.int64)},
    "centres_float": {"centres": empty(2, 5)},
    "key_mask_of_other_keys": {"key_mask": empty(2, 13, dtype=torch.bool)},
    "key_mask_int64": {"key_mask": empty(2, 12, dtype=torch.int64)},
}


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("backend", ["reference", "auto"])
def test_direct_calls_of_the_op_are_refused(name: str, backend: str) -> None:
    call = direct(windows=SPEC[1])
    call.update(WRONG[name])
    with pytest.raises(ValueError, match="expected"):
        torch.ops.diffrgen.routed_coattention(
            **call, exclusive=False, scale=0.5, needs_grad=True, return_lse=False, backend=backend
        )
    lse, grad = empty(2, 5, 2, 2), empty(2, 5, 2, 8)
    with pytest.raises(ValueError, match="expected"):
        torch.ops.diffrgen.routed_coattention_backward(
            grad, **call, lse=lse, exclusive=False, scale=0.5, natural_lse=False, backend=backend
        )


@has_extension
@pytest.mark.parametrize("name", WRONG)
def test_direct_calls_of_the_native_extension_are_refused(name: str) -> None:
    call = direct(windows=WINDOWS)
    call.update(WRONG[name])
    with pytest.raises(RuntimeError, match="expected"):
        torch.ops.diffrgen_native.forward(**call, exclusive=False, scale=0.5, needs_lse=True, stream=0)
    lse, grad = empty(2, 5, 2, 2), empty(2, 5, 2, 8)
    with pytest.raises(RuntimeError, match="expected"):
        torch.ops.diffrgen_native.backward(grad, **call, lse=lse, exclusive=False, scale=0.5, stream=0)


WRONG_SAVED = {
    "grad_of_another_shape": (empty(2, 5, 2, 7), empty(2, 5, 2, 2)),
    "grad_of_another_batch": (empty(1, 5, 2, 8), empty(2, 5, 2, 2)),
    "grad_float64": (empty(2, 5, 2, 8, dtype=torch.float64), empty(2, 5, 2, 2)),
    "no_lse": (empty(2, 5, 2, 8), empty(0)),
    "lse_of_other_rows": (empty(2, 5, 2, 8), empty(2, 4, 2, 2)),
    "lse_float64": (empty(2, 5, 2, 8), empty(2, 5, 2, 2, dtype=torch.float64)),
}


@pytest.mark.parametrize("name", WRONG_SAVED)
def test_backward_is_refused_what_forward_did_not_return(name: str) -> None:
    grad, lse = WRONG_SAVED[name]
    call = direct(windows=SPEC[1], lse=lse, exclusive=False, scale=0.5)
    with pytest.raises(ValueError, match=r"(grad|lse): expected"):
        torch.ops.diffrgen.routed_coattention_backward(grad, **call, natural_lse=False, backend="auto")


@has_extension
@pytest.mark.parametrize("name", WRONG_SAVED)
def test_native_backward_is_refused_what_forward_did_not_return(name: str) -> None:
    grad, lse = WRONG_SAVED[name]
    with pytest.raises(RuntimeError, match=r"(grad|lse): expected"):
        torch.ops.diffrgen_native.backward(
            grad, **direct(windows=WINDOWS), lse=lse, exclusive=False, scale=0.5, stream=0
        )


@has_extension
def test_native_windows_may_be_larger_than_any_grid() -> None:
    forward = functools.partial(torch.ops.diffrgen_native.forward, exclusive=False, scale=0.5, needs_lse=True, stream=0)
    huge, whole = (forward(**direct(windows=[size, size, 1, 1])) for size in (2**62, 4))
    assert all(torch.equal(a, b) for a, b in zip(huge, whole, strict=True))


def numerical_jvp(function: Callable[[Tensor], Tensor], x: Tensor, change: Tensor) -> Tensor:
    return (function(x + 1e-6 * change) - function(x - 1e-6 * change)) / 2e-6


@on_every_backend
@pytest.mark.parametrize(
    "case", [CASE, GENERAL, Case("exclusive", masking="exclusive", shared=True)], ids=lambda c: c.name
)
def test_forward_mode(case: Case, backend: str, device: str) -> None:
    """torch.func.jvp in each input, dual numbers in all together, jacfwd against jacrev."""
    if unavailable(backend, device, torch.float64) is not None or device != "cpu":
        pytest.skip("not with float64 on the CPU")
    inputs, operator = plain_inputs(case), operator_of(case, backend)
    changes = [torch.randn(x.shape, generator=torch.Generator().manual_seed(i)).to(x) for i, x in enumerate(inputs)]
    total: Any = 0
    for i, (x, change) in enumerate(zip(inputs, changes, strict=True)):
        own = functools.partial(lambda x, i: operator(*inputs[:i], x, *inputs[i + 1 :]), i=i)
        _, tangent = torch.func.jvp(own, (x,), (change,))
        assert torch.allclose(tangent, numerical_jvp(own, x, change), atol=1e-7)
        total = total + tangent
    with torch.autograd.forward_ad.dual_level():
        duals = [torch.autograd.forward_ad.make_dual(x, d) for x, d in zip(inputs, changes, strict=True)]
        assert torch.allclose(torch.autograd.forward_ad.unpack_dual(operator(*duals)).tangent, total)
    last = functools.partial(operator, *inputs[:3])
    forward, reverse = (jac(last)(inputs[3]) for jac in (torch.func.jacfwd, torch.func.jacrev))
    assert torch.allclose(forward, reverse)


def exact_grads(case: Case, inputs: list[Tensor]) -> tuple[Tensor, ...]:
    wide = [x.double().requires_grad_() for x in inputs]
    return torch.autograd.grad(dense(*wide, case).square().sum(), wide)


@on_every_backend
@pytest.mark.parametrize("case", [CASE, GENERAL], ids=lambda case: case.name)
def test_reverse_mode_of_torch_func(case: Case, backend: str, device: str) -> None:
    inputs, operator = [x.to(device) for x in plain_inputs(case, torch.float32)], operator_of(case, backend)
    exact = exact_grads(case, inputs)
    found = torch.func.grad(lambda *x: operator(*x).square().sum(), argnums=(0, 1, 2, 3))(*inputs)
    out, pullback = torch.func.vjp(operator, *inputs)
    pulled = pullback(2 * out)
    for a, b, true in zip(found, pulled, exact, strict=True):
        assert error(a, true) <= 5e-6
        assert error(b, true) <= 5e-6


@on_every_backend
@pytest.mark.parametrize("case", [CASE, GENERAL], ids=lambda case: case.name)
def test_gradients_of_each_sample(case: Case, backend: str, device: str) -> None:
    """vmap(grad), with the mask arguments batched or not, against each study's own gradients."""
    inputs = [x.to(device) for x in plain_inputs(case, torch.float32)]
    options = case.options_on(device)
    key_mask = options.pop("key_mask", None)

    def loss(q: Tensor, k: Tensor, v: Tensor, a: Tensor, keys: Tensor | None) -> Tensor:
        call = functools.partial(routed_coattention, q[None], k[None], v[None], a[None], **options, backend=backend)
        return call(key_mask=None if keys is None else keys[None]).square().sum()

    in_dims = (0, 0, 0, 0, None if key_mask is None else 0)
    found = torch.func.vmap(torch.func.grad(loss, argnums=(0, 1, 2, 3)), in_dims=in_dims)(*inputs, key_mask)
    for a, true in zip(found, exact_grads(case, inputs), strict=True):
        assert error(a, true) <= 5e-6


@on_every_backend
def test_vmap_over_any_axis_then_backward(backend: str, device: str) -> None:
    """Three values of q along its last axis, other inputs shared; another vmap inside; gradients of what is shared."""
    q, k, v, alpha = (x.to(device) for x in plain_inputs(dtype=torch.float32))
    many = torch.stack([q, q + 1, -q], dim=-1).requires_grad_()
    shared = [x.clone().requires_grad_() for x in (k, v, alpha)]
    operator = operator_of(CASE, backend)
    out = torch.func.vmap(lambda q: operator(q, *shared), in_dims=-1)(many)  # (3, B, N, H, D)
    grads = torch.autograd.grad(out.square().sum(), [many, *shared])
    wide = [x.detach().double().requires_grad_() for x in (many, *shared)]
    truth = torch.stack([dense(x, *wide[1:], CASE) for x in wide[0].unbind(-1)])
    assert error(out, truth.detach()) <= 5e-6
    for found, true in zip(grads, torch.autograd.grad(truth.square().sum(), wide), strict=True):
        assert error(found, true) <= 5e-6
    nested = torch.func.vmap(torch.func.vmap(operator, in_dims=(-1, None, None, None)), in_dims=(None, 0, 0, 0))
    pairs = nested(many.detach(), *(torch.stack([x, x.flip(0)]) for x in (k, v, alpha)))  # (2, 3, B, N, H, D)
    assert torch.allclose(pairs[0], out.detach(), atol=1e-6)
    assert torch.allclose(pairs[1, 2], operator(-q, k.flip(0), v.flip(0), alpha.flip(0)), atol=1e-6)


@pytest.mark.parametrize("again", ["create_graph", "hessian", "jvp_of_grad"])
def test_second_derivatives_name_a_call_that_has_them(again: str) -> None:
    inputs = plain_inputs()

    def second(operator: Callable[..., Tensor]) -> Tensor:
        function = lambda a: operator(*inputs[:3], a, **CASE.options).square().sum()  # noqa: E731
        if again == "hessian":
            return torch.func.hessian(function)(inputs[3])
        if again == "jvp_of_grad":
            return torch.func.jvp(torch.func.grad(function), (inputs[3],), (torch.ones_like(inputs[3]),))[1]
        alpha = inputs[3].clone().requires_grad_()
        (first,) = torch.autograd.grad(function(alpha), alpha, create_graph=True)
        return torch.autograd.grad(first.sum(), alpha)[0]

    with pytest.raises(RuntimeError, match=r"first derivatives only.* diffrgen_kernels.routed_coattention_reference"):
        second(routed_coattention)
    # out is linear in alpha: the second derivative of its square is twice the Gram matrix of the heads
    heads = torch.func.jacrev(lambda a: dense(*inputs[:3], a, CASE))(inputs[3]).flatten(0, -3)
    gram = 2 * torch.einsum("xbp,xcr->bpcr", heads, heads)
    assert torch.allclose(second(routed_coattention_reference), gram if again == "hessian" else gram.sum((2, 3)))


@on_every_backend
@pytest.mark.parametrize("case", [CASE, GENERAL], ids=lambda case: case.name)
def test_no_studies(case: Case, backend: str, device: str) -> None:
    """An empty batch gives an empty result, as scaled_dot_product_attention does, and gradients of the inputs' shapes."""
    inputs = [x.detach()[:0].to(device).requires_grad_() for x in case.inputs(torch.float32)]
    options = case.options_on(device)
    if "key_mask" in options:
        options["key_mask"] = options["key_mask"][:0]
    out, lse = routed_coattention(*inputs, **options, backend=backend, return_lse=True)
    assert out.shape == (0, case.rows, case.heads, case.dim)
    assert lse.shape == (0, case.rows, len(case.orders), case.heads)
    grads = torch.autograd.grad(out.sum(), inputs)
    assert [x.shape for x in grads] == [x.shape for x in inputs]
    with torch.no_grad():
        assert routed_coattention(*inputs, **options, backend=backend).shape == out.shape


@has_extension
def test_no_studies_in_the_native_extension() -> None:
    call = direct(windows=WINDOWS)
    call.update({name: call[name][:0] for name in ("q", "k", "v", "alpha")})
    out, lse = torch.ops.diffrgen_native.forward(**call, exclusive=False, scale=0.5, needs_lse=True, stream=0)
    grads = torch.ops.diffrgen_native.backward(out, **call, lse=lse, exclusive=False, scale=0.5, stream=0)
    assert [x.shape for x in grads] == [call[name].shape for name in ("q", "k", "v", "alpha")]


@pytest.mark.parametrize("case", [CASE, GENERAL], ids=lambda case: case.name)
def test_meta_tensors_go_through_the_fake(case: Case) -> None:
    inputs = [x.detach().to("meta").requires_grad_() for x in case.inputs(torch.bfloat16)]
    out, lse = routed_coattention(*inputs, **case.options_on("meta"), return_lse=True)
    assert (out.shape, out.dtype) == ((case.batch, case.rows, case.heads, case.dim), torch.bfloat16)
    assert (lse.shape, lse.dtype) == ((case.batch, case.rows, len(case.orders), case.heads), torch.float32)
    out.backward(torch.empty_like(out))
    assert [(x.grad.shape, x.grad.dtype) for x in inputs] == [(x.shape, x.dtype) for x in inputs]
    with pytest.raises(ValueError, match="alpha: expected the batch size of q, 2, got 1"):
        routed_coattention(*inputs[:3], inputs[3][:1], **case.options_on("meta"))


@on_every_backend
@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_what_absent_keys_hold_does_not_count(poison: float, backend: str, device: str) -> None:
    """Padding may be whatever memory held: outputs and gradients are those of zeros there."""
    case = Case("padding", keys="some", views=2, rows=14, dim=8)
    options = case.options_on(device)
    q, k, v, alpha = (x.detach().to(device) for x in case.inputs(torch.float32))
    absent = ~options["key_mask"][:, :, None, None, None]
    found = []
    for value in (0.0, poison):
        inputs = [
            x.clone().requires_grad_() for x in (q, k.masked_fill(absent, value), v.masked_fill(absent, value), alpha)
        ]
        out = routed_coattention(*inputs, **options, backend=backend)
        found.append([out.detach(), *torch.autograd.grad(out.square().sum(), inputs)])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
    assert not found[1][2].masked_select(absent).any()
    assert not found[1][3].masked_select(absent).any()

"""The op's registration with PyTorch: schema, kernels, fake, autograd, autocast, FLOP formula."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from ._ops import add_op_namespace_prefix, ops
from .checks import check_backward, check_call
from .contract import MaskSpec, features_of, sum_dtype
from .dispatch import resolve
from .windows import Order

_LIBRARY: Any = torch.library.Library(add_op_namespace_prefix("").removesuffix("::"), "FRAGMENT")
_INPUTS = "Tensor q, Tensor k, Tensor v, Tensor alpha, Tensor? centres, Tensor? key_mask"
# windows: for each mask half its height and half its width; -1, -1 is the whole grid
_SPEC = "SymInt[] grid, int[] windows, bool exclusive, float scale"
_LIBRARY.define(
    f"routed_coattention({_INPUTS}, {_SPEC}, bool needs_grad, bool return_lse, str backend) "
    "-> (Tensor out, Tensor lse)",
    tags=(torch.Tag.pt2_compliant_tag,),
)
_LIBRARY.define(
    f"routed_coattention_backward(Tensor grad, {_INPUTS}, Tensor lse, {_SPEC}, bool natural_lse, str backend) "
    "-> (Tensor dq, Tensor dk, Tensor dv, Tensor dalpha)",
    tags=(torch.Tag.pt2_compliant_tag,),
)


def flat_windows(orders: Sequence[Order]) -> list[int]:
    """Orders as the op's `windows`."""
    pairs = [order if isinstance(order, tuple) else (order or -1, order or -1) for order in orders]
    return [size for pair in pairs for size in pair]


def spec_of(grid: Sequence[int], windows: Sequence[int], exclusive: bool, scale: float) -> MaskSpec:
    """The op's options as a MaskSpec.

    Raises:
        ValueError: they are not those that `routed_coattention` makes.
    """
    if len(grid) != 2:
        raise ValueError(f"grid: expected (gh, gw), got {tuple(grid)}")
    pairs = list(zip(windows[::2], windows[1::2], strict=False))
    if len(windows) % 2 or any(pair != (-1, -1) and min(pair) < 0 for pair in pairs):
        wanted = "two numbers >= 0 for each mask, or -1, -1 for the whole grid"
        raise ValueError(f"windows: expected {wanted}, got {list(windows)}")
    orders = tuple(0 if pair == (-1, -1) else pair[0] if pair[0] == pair[1] > 0 else pair for pair in pairs)
    return MaskSpec((grid[0], grid[1]), orders, exclusive, scale)


@torch.library.impl(_LIBRARY, "routed_coattention", "CompositeExplicitAutograd")
def _forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    alpha: Tensor,
    centres: Tensor | None,
    key_mask: Tensor | None,
    grid: list[int],
    windows: list[int],
    exclusive: bool,
    scale: float,
    needs_grad: bool,
    return_lse: bool,
    backend: str,
) -> tuple[Tensor, Tensor]:
    spec = spec_of(grid, windows, exclusive, scale)
    check_call(q, k, v, alpha, centres, key_mask, spec)
    needs_lse = needs_grad or return_lse
    if q.shape[0] == 0:
        return _empty_results(q, alpha, needs_lse)
    chosen = resolve(backend, q.device.type, q.dtype, spec, features_of(k, alpha, centres, key_mask, spec))
    out, lse = chosen.forward(q, k, v, alpha, _whole(centres), key_mask, spec, needs_lse=needs_lse)
    return out, lse * chosen.LSE_UNIT if return_lse and chosen.LSE_UNIT != 1.0 else lse


@torch.library.impl(_LIBRARY, "routed_coattention_backward", "CompositeExplicitAutograd")
def _backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    alpha: Tensor,
    centres: Tensor | None,
    key_mask: Tensor | None,
    lse: Tensor,
    grid: list[int],
    windows: list[int],
    exclusive: bool,
    scale: float,
    natural_lse: bool,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    spec = spec_of(grid, windows, exclusive, scale)
    check_call(q, k, v, alpha, centres, key_mask, spec)
    check_backward(grad, q, alpha, lse)
    if q.shape[0] == 0:
        dq, dk, dv, dalpha = (x.new_empty(x.shape) for x in (q, k, v, alpha))
        return dq, dk, dv, dalpha
    chosen = resolve(backend, q.device.type, q.dtype, spec, features_of(k, alpha, centres, key_mask, spec))
    if natural_lse and chosen.LSE_UNIT != 1.0:
        lse = lse / chosen.LSE_UNIT
    return chosen.backward(grad, q, k, v, alpha, _whole(centres), key_mask, lse, spec)


def _whole(centres: Tensor | None) -> Tensor | None:
    return None if centres is None else centres.long()


def _empty_results(q: Tensor, alpha: Tensor, needs_lse: bool) -> tuple[Tensor, Tensor]:
    batch, rows, _, heads, dim = q.shape
    lse_shape = (batch, rows, alpha.shape[-1], heads) if needs_lse else (0,)
    return q.new_empty(batch, rows, heads, dim), q.new_empty(lse_shape, dtype=sum_dtype(q.dtype))


@torch.library.register_fake(add_op_namespace_prefix("routed_coattention"), lib=_LIBRARY)
def _forward_fake(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    alpha: Tensor,
    centres: Tensor | None,
    key_mask: Tensor | None,
    *options: Any,
) -> tuple[Tensor, Tensor]:
    check_call(q, k, v, alpha, centres, key_mask, spec_of(*options[:4]))
    return _empty_results(q, alpha, options[4] or options[5])


@torch.library.register_fake(add_op_namespace_prefix("routed_coattention_backward"), lib=_LIBRARY)
def _backward_fake(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, alpha: Tensor, *rest: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    dq, dk, dv, dalpha = (x.new_empty(x.shape) for x in (q, k, v, alpha))
    return dq, dk, dv, dalpha


def save_for_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    """Keep the tensors of a call and its lse, and in ctx.options what the backward op takes after them."""
    *tensors, grid, windows, exclusive, scale, _, return_lse, backend = inputs
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(*tensors, output[1])
    ctx.options = (grid, windows, exclusive, scale, return_lse, backend)


def _differentiate(ctx: Any, grad: Tensor, _: Tensor | None) -> tuple[Tensor | None, ...]:
    backward = ops.routed_coattention_backward
    if torch._C._are_functorch_transforms_active() and not torch.compiler.is_compiling():
        # a batch of gradients (is_grads_batched=True) comes through vmap; derivatives.py builds on this file
        from .derivatives import RoutedCoattentionBackward

        backward = RoutedCoattentionBackward.apply
    grads = backward(grad, *ctx.saved_tensors, *ctx.options)
    return (*grads, *(None,) * 9)


def refuse_second_derivative(*_: Any) -> NoReturn:
    """RuntimeError with the call that can be differentiated again."""
    raise RuntimeError(
        "routed_coattention has first derivatives only, and a second one was asked for (create_graph=True, or torch.func's "
        "transforms inside each other). diffrgen_kernels.routed_coattention_reference, called with the same arguments "
        "but `backend` and `return_lse`, can be differentiated any number of times."
    )


torch.library.register_autograd(
    add_op_namespace_prefix("routed_coattention"), _differentiate, setup_context=save_for_backward, lib=_LIBRARY
)
torch.library.register_autograd(
    add_op_namespace_prefix("routed_coattention_backward"), refuse_second_derivative, lib=_LIBRARY
)


def cast_for_autocast(q: Tensor, k: Tensor, v: Tensor, alpha: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Under autocast q, k and v in one dtype and alpha in that of its sums; otherwise as they came.

    The dtype is autocast's, but float64 if one of q, k, v is: autocast leaves float64 as it is.
    """
    kind = q.device.type
    if (
        kind == "meta"
        or not torch.is_autocast_enabled(kind)
        or not all(x.is_floating_point() for x in (q, k, v, alpha))
    ):
        return q, k, v, alpha
    double = any(x.dtype == torch.float64 for x in (q, k, v))
    dtype = torch.float64 if double else torch.get_autocast_dtype(kind)
    return q.to(dtype), k.to(dtype), v.to(dtype), alpha.to(sum_dtype(dtype))


def _autocast(device_type: str) -> None:
    """Direct calls of the op under autocast."""
    key = {"cpu": "AutocastCPU", "cuda": "AutocastCUDA"}[device_type]
    keys = torch._C.DispatchKeySet(getattr(torch._C.DispatchKey, key))

    def rule(q: Tensor, k: Tensor, v: Tensor, alpha: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
        cast = cast_for_autocast(q, k, v, alpha)
        with torch._C._ExcludeDispatchKeyGuard(keys):
            return ops.routed_coattention(*cast, *rest)

    _LIBRARY.impl("routed_coattention", rule, key)


_autocast("cpu")
_autocast("cuda")


@register_flop_formula(ops.routed_coattention)
def _forward_flops(
    q: Sequence[int], k: Sequence[int], v: Sequence[int], alpha: Sequence[int], *_: Any, **__: Any
) -> int:
    """2 products of N x M x D a mask and head, counted dense as PyTorch counts a causal attention."""
    return 2 * 2 * q[0] * alpha[-1] * q[3] * q[1] * k[1] * q[4]


@register_flop_formula(ops.routed_coattention_backward)
def _backward_flops(
    grad: Sequence[int], q: Sequence[int], k: Sequence[int], v: Sequence[int], alpha: Sequence[int], *_: Any, **__: Any
) -> int:
    """5 products: the logits again, and the gradients of weights, values, queries and keys."""
    return 5 * 2 * q[0] * alpha[-1] * q[3] * q[1] * k[1] * q[4]

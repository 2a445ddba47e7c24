"""The op's derivatives and batching, for eager mode and torch.func: reverse and forward mode, vmap.

torch.library's registered autograd (registration.py) serves plain calls, torch.compile and direct calls of the op; it has
neither vmap nor forward mode, and a forward-mode derivative through it would be 0. An autograd.Function with both takes
50 us a call more, as much as a third of the kernels of 16 heads of 21 rows and 49 patches.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from . import reference
from ._ops import ops
from .registration import refuse_second_derivative, save_for_backward, spec_of

# q, k, v, alpha, centres, key_mask, then the options: grid, windows, exclusive, scale, needs_grad, return_lse, backend
TENSORS = 6


def apply(*inputs: Any) -> tuple[Tensor, Tensor]:
    """out and lse of the op's arguments, differentiable once in q, k, v and alpha, in every mode."""
    plain = torch.compiler.is_compiling() or not transformed()
    found: tuple[Tensor, Tensor] = ops.routed_coattention(*inputs) if plain else RoutedCoattention.apply(*inputs)
    return found


def transformed() -> bool:
    """Whether a transform of torch.func, or forward mode, is at work."""
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0


def needs_grad(*tensors: Tensor) -> bool:
    """Whether a backward may follow."""
    return torch.is_grad_enabled() and any(x.requires_grad for x in tensors)


class RoutedCoattention(torch.autograd.Function):
    """diffrgen::routed_coattention."""

    @staticmethod
    def forward(*inputs: Any) -> tuple[Tensor, Tensor]:
        """The op below autograd."""
        found: tuple[Tensor, Tensor] = ops.routed_coattention(*inputs)
        return found

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        """Keep what either mode needs."""
        save_for_backward(ctx, inputs, output)
        ctx.save_for_forward(*inputs[:TENSORS])

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Tensor | None) -> tuple[Tensor | None, ...]:
        """Gradients of q, k, v and alpha."""
        grads = RoutedCoattentionBackward.apply(grad, *ctx.saved_tensors, *ctx.options)
        return (*grads, *(None,) * (len(ctx.needs_input_grad) - len(grads)))

    @staticmethod
    def jvp(ctx: Any, *changes: Tensor | None) -> tuple[Tensor, None]:
        """The tangent of out, by the reference's dense formula; lse has none."""
        q, k, v, alpha, centres, key_mask = ctx.saved_tensors
        spec = spec_of(*ctx.options[:4])
        dq, dk, dv, dalpha = (
            torch.zeros_like(x) if d is None else d for x, d in zip((q, k, v, alpha), changes[:4], strict=True)
        )
        return reference.tangent(q, k, v, alpha, centres, key_mask, spec, (dq, dk, dv, dalpha)), None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *inputs: Any) -> tuple[tuple[Tensor, Tensor], tuple[int, int | None]]:
        """The new axis becomes part of the batch."""
        tensors = _fold_all(inputs[:TENSORS], in_dims, info.batch_size, centres=4)
        options = list(inputs[TENSORS:])
        options[4] = options[4] or needs_grad(*tensors[:4])
        out, lse = apply(*tensors, *options)
        saved = lse.dim() > 1
        return (_unfold(out, info.batch_size), _unfold(lse, info.batch_size) if saved else lse), (
            0,
            0 if saved else None,
        )


class RoutedCoattentionBackward(torch.autograd.Function):
    """diffrgen::routed_coattention_backward."""

    @staticmethod
    def forward(*inputs: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The op below autograd."""
        found: tuple[Tensor, Tensor, Tensor, Tensor] = ops.routed_coattention_backward(*inputs)
        return found

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        """There is nothing to keep."""

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> None:
        """Refused."""
        refuse_second_derivative()

    @staticmethod
    def jvp(ctx: Any, *changes: Tensor | None) -> None:
        """Refused: forward over reverse is a second derivative."""
        refuse_second_derivative()

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *inputs: Any) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        """The new axis becomes part of the batch."""
        count = TENSORS + 2  # with grad and lse
        tensors = _fold_all(inputs[:count], in_dims, info.batch_size, centres=5)
        grads = RoutedCoattentionBackward.apply(*tensors, *inputs[count:])
        return tuple(_unfold(x, info.batch_size) for x in grads), (0, 0, 0, 0)


def _fold_all(tensors: tuple[Any, ...], dims: tuple[Any, ...], size: int, *, centres: int) -> list[Any]:
    """Tensors (B, ...), those with a dim having V = `size` of them along it, as (V * B, ...); `centres`: their place."""
    folded = [_fold(x, dim, size) for x, dim in zip(tensors, dims, strict=False)]
    if tensors[centres] is not None:  # (1, N) counts for every study
        x, dim = tensors[centres], dims[centres]
        views = x.expand(size, *x.shape) if dim is None else x.movedim(dim, 0)  # (V, B or 1, N)
        folded[centres] = views.expand(-1, folded[0].shape[0] // size, -1).flatten(0, 1)
    return folded


def _fold(x: Any, dim: int | None, size: int) -> Any:
    if x is None:
        return None
    return (x.expand(size, *x.shape) if dim is None else x.movedim(dim, 0)).flatten(0, 1)


def _unfold(x: Tensor, size: int) -> Tensor:
    return x.unflatten(0, (size, x.shape[0] // size))

"""The public operator, and its registration with PyTorch: schema, fake, autograd, autocast, FLOP formula."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from diffrgen_kernels.contract import Masking, MaskSpec, check_call, sum_dtype
from diffrgen_kernels.dispatch import BACKENDS, resolve


def routed_coattention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    alpha: Tensor,
    *,
    grid: Sequence[int],
    orders: Sequence[int],
    masking: Masking = "multiplicative",
    scale: float | None = None,
    backend: str = "auto",
) -> Tensor:
    """Routed co-attention, Eq. 5 of DiffRGenNet (MIDL 2025).

        out[b,i,h,:] = sum_j alpha[b,j] * softmax_over_l(logits[b,i,j,h,l]) @ v[b,l,j,h,:]
        logits[b,i,j,h,l] = scale * (q[b,i,j,h,:] . k[b,l,j,h,:]) (x) A^orders[j][i,l]

    Args:
        q: (B, N, P, H, D) float32, float16, bfloat16 or float64, 1 <= D <= 256; a strided view needs no copy.
        k: (B, M, P, H, D), dtype and device of q.
        v: (B, M, P, H, D). The P axis may have length 1 in q, k and v together: the masks then share the projections.
        alpha: (B, P) routing weights, float32 (float64 with float64).
        grid: (gh, gw) patches, gh * gw = M.
        orders: P window orders s >= 0; mask j is the (2s+1) x (2s+1) window round patch i mod M, or for s = 0 all ones
            (Eq. 6).
        masking: "multiplicative" sets a masked logit to 0, as Eq. 5; "exclusive" to -inf.
        scale: factor of the logits; None means 1/sqrt(D).
        backend: "auto", "reference", "triton" or "native".

    Returns:
        (B, N, H, D) in the dtype of q. Softmax and sums are float32 (float64 for float64).

    Raises:
        ValueError: an argument is not as above.
        RuntimeError: the named backend cannot run here, or a second derivative is asked for.

    >>> q, k, v = torch.zeros(1, 3, 2, 1, 8), torch.zeros(1, 4, 2, 1, 8), torch.ones(1, 4, 2, 1, 8)
    >>> alpha = torch.tensor([[0.5, 0.5]])
    >>> routed_coattention(q, k, v, alpha, grid=(2, 2), orders=(0, 1), backend="reference")[0, :, 0, 0]
    tensor([1., 1., 1.])
    """
    if backend != "auto" and backend not in BACKENDS:
        raise ValueError(f"backend: expected auto, {', '.join(BACKENDS)}, got {backend!r}")
    spec = check_call(q, k, v, alpha, grid=grid, orders=orders, masking=masking, scale=scale)
    needs_grad = torch.is_grad_enabled() and (
        q.requires_grad or k.requires_grad or v.requires_grad or alpha.requires_grad
    )
    out: Tensor
    out, _ = torch.ops.diffrgen.routed_coattention(
        q, k, v, alpha, spec.grid, spec.orders, spec.exclusive, spec.scale, needs_grad, backend
    )
    return out


_LIBRARY: Any = torch.library.Library("diffrgen", "DEF")
_ROUTING = "SymInt[] grid, int[] orders, bool exclusive, float scale"
_LIBRARY.define(
    f"routed_coattention(Tensor q, Tensor k, Tensor v, Tensor alpha, {_ROUTING}, bool needs_grad, str backend) "
    "-> (Tensor out, Tensor lse)",
    tags=(torch.Tag.pt2_compliant_tag,),
)
_LIBRARY.define(
    f"routed_coattention_backward(Tensor grad, Tensor q, Tensor k, Tensor v, Tensor alpha, Tensor lse, {_ROUTING}, "
    "str backend) -> (Tensor dq, Tensor dk, Tensor dv, Tensor dalpha)",
    tags=(torch.Tag.pt2_compliant_tag,),
)


@torch.library.impl(_LIBRARY, "routed_coattention", "CompositeExplicitAutograd")
def _forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    alpha: Tensor,
    grid: list[int],
    orders: list[int],
    exclusive: bool,
    scale: float,
    needs_grad: bool,
    backend: str,
) -> tuple[Tensor, Tensor]:
    spec = MaskSpec((grid[0], grid[1]), tuple(orders), exclusive, scale)
    return resolve(backend, q.device.type, q.dtype).forward(q, k, v, alpha, spec, needs_grad=needs_grad)


@torch.library.impl(_LIBRARY, "routed_coattention_backward", "CompositeExplicitAutograd")
def _backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    alpha: Tensor,
    lse: Tensor,
    grid: list[int],
    orders: list[int],
    exclusive: bool,
    scale: float,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    spec = MaskSpec((grid[0], grid[1]), tuple(orders), exclusive, scale)
    return resolve(backend, q.device.type, q.dtype).backward(grad, q, k, v, alpha, lse, spec)


@torch.library.register_fake("diffrgen::routed_coattention", lib=_LIBRARY)
def _forward_fake(q: Tensor, k: Tensor, v: Tensor, alpha: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    needs_grad, backend = rest[-2:]
    batch, rows, _, heads, dim = q.shape
    saves = needs_grad and resolve(backend, q.device.type, q.dtype).SAVES_LSE
    lse_shape = (batch, rows, alpha.shape[1], heads) if saves else (0,)
    return q.new_empty(batch, rows, heads, dim), q.new_empty(lse_shape, dtype=sum_dtype(q.dtype))


@torch.library.register_fake("diffrgen::routed_coattention_backward", lib=_LIBRARY)
def _backward_fake(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, alpha: Tensor, *rest: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    dq, dk, dv, dalpha = (x.new_empty(x.shape) for x in (q, k, v, alpha))
    return dq, dk, dv, dalpha


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    q, k, v, alpha, grid, orders, exclusive, scale, _, backend = inputs
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(q, k, v, alpha, output[1])
    ctx.spec = (grid, orders, exclusive, scale, backend)


def _differentiate(ctx: Any, grad: Tensor, _: Tensor | None) -> tuple[Tensor | None, ...]:
    grads = torch.ops.diffrgen.routed_coattention_backward(grad, *ctx.saved_tensors, *ctx.spec)
    return (*grads, None, None, None, None, None, None)


def _refuse_second_derivative(ctx: Any, *grads: Tensor) -> None:
    raise RuntimeError(
        "routed_coattention has first derivatives only, and a second one was asked for (create_graph=True). "
        "diffrgen_kernels.routed_coattention_reference can be differentiated twice."
    )


torch.library.register_autograd("diffrgen::routed_coattention", _differentiate, setup_context=_save, lib=_LIBRARY)
torch.library.register_autograd("diffrgen::routed_coattention_backward", _refuse_second_derivative, lib=_LIBRARY)


def _autocast(device_type: str) -> None:
    """Under autocast q, k and v take its dtype and alpha becomes float32; float64 stays, as in PyTorch's own rules."""
    key = {"cpu": "AutocastCPU", "cuda": "AutocastCUDA"}[device_type]
    keys = torch._C.DispatchKeySet(getattr(torch._C.DispatchKey, key))

    def rule(q: Tensor, k: Tensor, v: Tensor, alpha: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
        if q.dtype != torch.float64:
            dtype = torch.get_autocast_dtype(device_type)
            q, k, v, alpha = q.to(dtype), k.to(dtype), v.to(dtype), alpha.to(torch.float32)
        with torch._C._ExcludeDispatchKeyGuard(keys):
            return torch.ops.diffrgen.routed_coattention(q, k, v, alpha, *rest)

    _LIBRARY.impl("routed_coattention", rule, key)


_autocast("cpu")
_autocast("cuda")


@register_flop_formula(torch.ops.diffrgen.routed_coattention)
def _forward_flops(
    q: Sequence[int], k: Sequence[int], v: Sequence[int], alpha: Sequence[int], *_: Any, **__: Any
) -> int:
    """2 products of N x M x D a mask and head, counted dense as PyTorch counts a causal attention."""
    return 2 * 2 * q[0] * alpha[1] * q[3] * q[1] * k[1] * q[4]


@register_flop_formula(torch.ops.diffrgen.routed_coattention_backward)
def _backward_flops(
    grad: Sequence[int], q: Sequence[int], k: Sequence[int], v: Sequence[int], alpha: Sequence[int], *_: Any, **__: Any
) -> int:
    """5 products: the logits again, and the gradients of weights, values, queries and keys."""
    return 5 * 2 * q[0] * alpha[1] * q[3] * q[1] * k[1] * q[4]

"""The public operator: routed co-attention over patch windows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, overload

from torch import Tensor

from .checks import check_grid, check_masking, check_orders, check_scale, check_tensors
from .contract import Masking
from .derivatives import apply, needs_grad
from .dispatch import BACKENDS
from .registration import cast_for_autocast, flat_windows
from .windows import Order


@overload
def routed_coattention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    alpha: Tensor,
    *,
    grid: Sequence[int],
    orders: Sequence[Order],
    masking: Masking = ...,
    scale: float | None = ...,
    centres: Tensor | None = ...,
    key_mask: Tensor | None = ...,
    return_lse: Literal[False] = ...,
    backend: str = ...,
) -> Tensor: ...


@overload
def routed_coattention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    alpha: Tensor,
    *,
    grid: Sequence[int],
    orders: Sequence[Order],
    masking: Masking = ...,
    scale: float | None = ...,
    centres: Tensor | None = ...,
    key_mask: Tensor | None = ...,
    return_lse: Literal[True],
    backend: str = ...,
) -> tuple[Tensor, Tensor]: ...


def routed_coattention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    alpha: Tensor,
    *,
    grid: Sequence[int],
    orders: Sequence[Order],
    masking: Masking = "multiplicative",
    scale: float | None = None,
    centres: Tensor | None = None,
    key_mask: Tensor | None = None,
    return_lse: bool = False,
    backend: str = "auto",
) -> Tensor | tuple[Tensor, Tensor]:
    """Routed co-attention, Eq. 5 of DiffRGenNet (MIDL 2025).

        out[b,i,h,:] = sum_j alpha[b,j] * softmax_over_l(logits[b,i,j,h,l]) @ v[b,l,j,h,:]
        logits[b,i,j,h,l] = scale * (q[b,i,j,h,:] . k[b,l,j,h,:]) (x) A^orders[j][i,l]
        lse[b,i,j,h] = log sum_l exp(logits[b,i,j,h,l])

    With m = gh * gw patches of a view, A^s[i,l] is 1 where patch l mod m lies in the window round patch c_i, else 0.

    Args:
        q: (B, N, P, H, D) float32, float16, bfloat16 or float64, B >= 0, 1 <= D <= 256, the others >= 1; a strided view
            needs no copy.
        k: (B, M, P, H, D), dtype and device of q. M is a multiple of gh * gw: the grids of several views one after the
            other, with the same window in each.
        v: (B, M, P, H, D). The P axis may have length 1 in q, k and v together: the masks then share the projections.
        alpha: (B, P) routing weights, or (B, N, P) where each row has its own; float32 (float64 with float64).
        grid: (gh, gw) patches of a view.
        orders: P windows. s > 0 is (2s+1) x (2s+1) patches, 0 all ones (Eq. 6), a pair (height, width) >= 0 is
            (2 height + 1) x (2 width + 1) patches.
        masking: "multiplicative" sets a masked logit to 0, as Eq. 5; "exclusive" to -inf.
        scale: factor of the logits; None means 1/sqrt(D).
        centres: (B or 1, N) int64 or int32 in [0, gh * gw): the patch c_i round which row i's window lies; None means
            i mod (gh * gw). On a GPU the range is not checked (it would have to be waited for): a number outside of it
            counts as the nearest one inside.
        key_mask: (B, M) bool; a False key does not exist: it has no weight under any mask and is not one of the masked
            logits of 0. A row without keys gives 0, with gradients of 0; in "exclusive" so does a window without keys,
            for its mask.
        return_lse: also return lse.
        backend: "auto", "reference", "triton" or "native". "auto" takes the best one that can compute the call, and
            warns once where a better one lacks what the call asks for.

    Returns:
        (B, N, H, D) in the dtype of q. Softmax and sums are float32 (float64 for float64). With `return_lse` also lse
        (B, N, P, H) in the dtype of the sums, natural logarithm, -inf for a row without keys; no gradient flows
        through it.

    q, k, v and alpha have first derivatives, in reverse and forward mode (forward mode by the reference's dense
    formula), and torch.func's transforms work in eager mode. Under autocast q, k and v are brought to its dtype and
    alpha to that of the sums; to float64 where one of q, k, v is float64.

    Raises:
        ValueError: an argument is not as above.
        RuntimeError: the named backend cannot run here or cannot compute this call, or a second derivative is asked
            for.

    >>> import torch
    >>> q, k, v = torch.zeros(1, 3, 2, 1, 8), torch.zeros(1, 4, 2, 1, 8), torch.ones(1, 4, 2, 1, 8)
    >>> alpha = torch.tensor([[0.5, 0.5]])
    >>> routed_coattention(q, k, v, alpha, grid=(2, 2), orders=(0, 1), backend="reference")[0, :, 0, 0]
    tensor([1., 1., 1.])
    """
    if backend != "auto" and backend not in BACKENDS:
        raise ValueError(f"backend: expected auto, {', '.join(BACKENDS)}, got {backend!r}")
    check_tensors(q=q, k=k, v=v, alpha=alpha)
    check_tensors(**{name: x for name, x in (("centres", centres), ("key_mask", key_mask)) if x is not None})
    gh, gw = check_grid(grid)
    windows = flat_windows(check_orders(orders))
    exclusive, scale = check_masking(masking), check_scale(scale, q)
    q, k, v, alpha = cast_for_autocast(q, k, v, alpha)
    tensors = (q, k, v, alpha, centres, key_mask)
    grad = needs_grad(q, k, v, alpha)
    out, lse = apply(*tensors, [gh, gw], windows, exclusive, scale, grad, return_lse, backend)
    return (out, lse) if return_lse else out

"""Who computes the routed co-attention of a case: this project's backends, PyTorch's means, and two yardsticks."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from cases import Case
from diffrgen_kernels import available_backends, routed_coattention, routed_coattention_reference
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend

Operator = Callable[..., Tensor]
ScoreMod = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]


# relative Frobenius error in float32: of this project's code, and of code that sums in another order
OWN, OTHERS = 2e-6, 1e-5


class Absent(Exception):
    """Why a contender cannot run here."""


@dataclass(frozen=True)
class Contender:
    """One way to compute a case from q, k, v, alpha.

    bound: the error that it may have in float32. windowed: it computes Eq. 5 with its masks; a yardstick does not, its
    masks are all ones. forward_only: why it has no gradients, or empty. note: what else a reader of its times should
    know.
    """

    function: Operator
    bound: float = OTHERS
    windowed: bool = True
    forward_only: str = ""
    note: str = ""


def build(name: str, case: Case, device: str, dtype: torch.dtype) -> Contender:
    """The contender of that name for a case; Absent says why there is none."""
    return CONTENDERS[name](case, device, dtype)


def _scale(case: Case) -> float:
    return case.dim**-0.5 if case.scale is None else case.scale


def _eager(case: Case, device: str, dtype: torch.dtype) -> Contender:
    return Contender(partial(routed_coattention_reference, **case.options), OWN)


def _compiled(case: Case, device: str, dtype: torch.dtype) -> Contender:
    return Contender(torch.compile(_eager(case, device, dtype).function, fullgraph=True, dynamic=False))


def _backend(name: str, case: Case, device: str, dtype: torch.dtype) -> Contender:
    reason = available_backends(device, dtype)[name]
    if reason != "ok":
        raise Absent(reason)
    return Contender(partial(routed_coattention, **case.options, backend=name), OWN)


def _flex(case: Case, device: str, dtype: torch.dtype) -> Contender:
    """FlexAttention, one call a mask; a score_mod sets the masked logits to 0, so no block can be left out."""
    from torch.nn.attention.flex_attention import flex_attention

    mods = [_window_mod(case.grid, order) for order in case.orders]

    def combine(q: list[Tensor], k: list[Tensor], v: list[Tensor], alpha: Tensor) -> Tensor:
        heads: Any = 0
        for j, mod in enumerate(mods):
            head = flex_attention(q[j], k[j], v[j], score_mod=mod, scale=_scale(case))  # (B, H, N, D)
            heads = heads + alpha[:, j, None, None, None] * head
        return heads.transpose(1, 2).to(dtype)  # (B, N, H, D)

    if device == "cpu":
        # there its template takes no views made inside the compiled function (torch 2.13)
        inner = torch.compile(combine, fullgraph=True, dynamic=False)
        return Contender(_per_mask(inner), forward_only="FlexAttention has no gradients on a CPU")
    return Contender(torch.compile(_per_mask(combine), fullgraph=True, dynamic=False))


def _window_mod(grid: tuple[int, int], order: int) -> ScoreMod | None:
    """Eq. 6 times the logit, by index arithmetic."""
    width, patches = grid[1], grid[0] * grid[1]
    if order == 0:
        return None

    def masked(score: Tensor, b: Tensor, h: Tensor, row: Tensor, patch: Tensor) -> Tensor:
        own = row % patches
        down, across = own // width - patch // width, own % width - patch % width
        return torch.where((down.abs() <= order) & (across.abs() <= order), score, 0.0)

    return masked


def _per_mask(combine: Callable[..., Tensor]) -> Operator:
    """Hand `combine` the P queries, keys and values as lists of (B, H, N or M, D)."""

    def routed(q: Tensor, k: Tensor, v: Tensor, alpha: Tensor) -> Tensor:
        return combine(*([y.transpose(1, 2) for y in x.unbind(2)] for x in (q, k, v)), alpha)

    return routed


def _sdpa(case: Case, device: str, dtype: torch.dtype) -> Contender:
    """P calls of scaled_dot_product_attention without masks, summed."""

    def combine(q: list[Tensor], k: list[Tensor], v: list[Tensor], alpha: Tensor) -> Tensor:
        heads: Any = 0
        for j in range(len(case.orders)):
            head = functional.scaled_dot_product_attention(q[j], k[j], v[j], scale=_scale(case))  # (B, H, N, D)
            heads = heads + alpha[:, j, None, None, None] * head
        return heads.transpose(1, 2).to(dtype)

    return Contender(_per_mask(combine), windowed=False, note=f"all patches, {_sdpa_backend(case, device, dtype)}")


def _sdpa_backend(case: Case, device: str, dtype: torch.dtype) -> str:
    """The implementation that PyTorch picks for one mask's call with gradients."""
    rows, patches = case.rows, case.grid[0] * case.grid[1]
    shapes = [(case.batch, n, case.heads, case.dim) for n in (rows, patches, patches)]
    q, k, v = (torch.zeros(x, device=device, dtype=dtype, requires_grad=True).transpose(1, 2) for x in shapes)
    return SDPBackend(torch._fused_sdp_choice(q, k, v)).name.lower()


def _xformers(case: Case, device: str, dtype: torch.dtype) -> Contender:
    """P calls of xformers' memory_efficient_attention without masks, summed."""
    if importlib.util.find_spec("xformers") is None:
        raise Absent("xformers is not installed")
    if device == "cpu":
        raise Absent("xformers has no attention for a CPU")
    from xformers.ops import memory_efficient_attention

    def routed(q: Tensor, k: Tensor, v: Tensor, alpha: Tensor) -> Tensor:
        out: Any = 0
        for j in range(len(case.orders)):
            head = memory_efficient_attention(q[:, :, j], k[:, :, j], v[:, :, j], scale=_scale(case))  # (B, N, H, D)
            out = out + alpha[:, j, None, None, None] * head
        return out.to(dtype)

    return Contender(routed, windowed=False, note="all patches")


CONTENDERS: dict[str, Callable[[Case, str, torch.dtype], Contender]] = {
    "eager": _eager,
    "compiled": _compiled,
    "flex": _flex,
    "native": partial(_backend, "native"),
    "triton": partial(_backend, "triton"),
    "sdpa": _sdpa,
    "xformers": _xformers,
}

"""Eq. 5 and its gradients in float64 and in a call's own dtype: what a contender is held against before it is timed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from cases import Case
from diffrgen_kernels import window_masks
from torch import Tensor

NAMES = ("out", "dq", "dk", "dv", "dalpha")
# a call with more logits than this is checked on the heads of its corners, all rows and masks of them
WHOLE = 2**28
CHUNK = 2**25


@dataclass(frozen=True)
class Part:
    """The checked part of a call: for each of S blocks the studies (S, 1) and the heads (S, T)."""

    studies: Tensor
    heads: Tensor

    def chunks(self, logits: int) -> Iterator[Part]:
        """The part whole, or, where its `logits` a head are too many at once, head by head."""
        if logits * self.heads.numel() <= CHUNK:
            yield self
            return
        for study, heads in zip(self.studies, self.heads, strict=True):
            for head in heads:
                yield Part(study[None], head[None, None])


def checked_part(case: Case, device: str) -> Part:
    """All studies and heads, or in a large call the first head of the first study and the last of the last."""
    logits = case.batch * len(case.orders) * case.heads * case.rows * case.grid[0] * case.grid[1]
    if logits > WHOLE:
        studies, heads = [[0], [case.batch - 1]], [[0], [case.heads - 1]]
    else:
        studies, heads = [[study] for study in range(case.batch)], [list(range(case.heads))] * case.batch
    return Part(torch.tensor(studies, device=device), torch.tensor(heads, device=device))


def probe(case: Case, part: Part, dtype: torch.dtype, seed: int = 1) -> Tensor:
    """A random gradient of the output (B, N, H, D) that is zero outside the part."""
    device = part.studies.device
    values = torch.randn(  # (S, T, N, D)
        *part.heads.shape, case.rows, case.dim, generator=torch.Generator().manual_seed(seed)
    )
    grad = torch.zeros(case.batch, case.rows, case.heads, case.dim, dtype=dtype, device=device)
    grad[part.studies, :, part.heads] = values.to(grad)
    return grad


def solve(case: Case, inputs: Sequence[Tensor], grad: Tensor, part: Part, dtype: torch.dtype) -> list[Tensor]:
    """out and the gradients of q, k, v, alpha for `grad`, every step of Eq. 5 in `dtype`; zero outside the part."""
    plain = [x.detach() for x in inputs]
    results = [torch.zeros(x.shape, dtype=dtype, device=x.device) for x in (grad, *plain)]
    patches = case.grid[0] * case.grid[1]
    for j, order in enumerate(case.orders):
        mask = window_masks(case.grid, (order,), case.rows, dtype=torch.bool, device=grad.device)[0]  # (N, M)
        for piece in part.chunks(case.rows * patches):
            _add_head(results, plain, grad, mask, j, piece, _scale(case))
    return results


def _scale(case: Case) -> float:
    return case.dim**-0.5 if case.scale is None else case.scale


def _add_head(
    results: list[Tensor], inputs: list[Tensor], grad: Tensor, mask: Tensor, j: int, part: Part, scale: float
) -> None:
    """Add mask j's share of the part to out, dq, dk, dv, dalpha."""
    s, h, dtype = part.studies, part.heads, results[0].dtype
    own = j if inputs[0].shape[2] > 1 else 0
    q, k, v = (x[s, :, own, h].to(dtype).requires_grad_() for x in inputs[:3])  # (S, T, N or M, D)
    alpha = inputs[3][s[:, 0], j].to(dtype).requires_grad_()  # (S,)
    logits = torch.where(mask, scale * q @ k.mT, 0)  # (S, T, N, M)
    head = alpha[:, None, None, None] * torch.softmax(logits, dim=-1) @ v  # (S, T, N, D)
    out, dq, dk, dv, dalpha = results
    out[s, :, h] += head.detach()
    grads = torch.autograd.grad(head, (q, k, v, alpha), grad[s, :, h].to(dtype))
    for total, value in zip((dq, dk, dv), grads[:3], strict=True):
        total[s, :, own, h] += value
    dalpha[:, j].index_add_(0, s[:, 0], grads[3])


class Truth:
    """The exact results of a case, with its windows (`windowed`) or with all patches under every mask.

    An error is ||value - exact|| / ||exact||. In 16 bits it may be twice that of Eq. 5 with every step in the call's
    own dtype, and half a rounding step; in float32 the caller says what it may be.
    """

    def __init__(self, case: Case, inputs: Sequence[Tensor], *, windowed: bool) -> None:
        self.dtype = inputs[0].dtype
        case = case if windowed else replace(case, orders=(0,) * len(case.orders))
        self.inputs = inputs
        self.part = checked_part(case, str(inputs[0].device))
        self.grad = probe(case, self.part, self.dtype)
        self.exact = solve(case, inputs, self.grad, self.part, torch.float64)
        self.narrow: list[float] = []
        if self.dtype != torch.float32:
            chain = solve(case, inputs, self.grad, self.part, self.dtype)
            self.narrow = [2 * error + torch.finfo(self.dtype).eps / 2 for error in self._errors(chain)]

    def check(self, function: Callable[..., Tensor], bound: float, *, backward: bool = True) -> dict[str, float]:
        """Run a contender and return its errors; ValueError names one that is too large (float32: above `bound`)."""
        if backward:
            out = function(*self.inputs)
            found = [out.detach(), *torch.autograd.grad(out, self.inputs, self.grad)]
        else:
            found = [function(*(x.detach() for x in self.inputs))]
        errors = self._errors(found)
        for name, error, limit in zip(NAMES, errors, self.narrow or [bound] * len(NAMES), strict=False):
            if not error <= limit:  # NaN is no pass
                raise ValueError(f"{name}: expected a relative error of at most {limit:.1e}, got {error:.1e}")
        return dict(zip(NAMES, errors, strict=False))

    def _errors(self, found: Sequence[Tensor]) -> list[float]:
        found = [self._inside(found[0]), *found[1:]]
        exact = [self._inside(self.exact[0]), *self.exact[1:]]
        return [((x - y).norm() / y.norm()).item() for x, y in zip(found, exact, strict=False)]

    def _inside(self, out: Tensor) -> Tensor:
        return out[self.part.studies, :, self.part.heads]

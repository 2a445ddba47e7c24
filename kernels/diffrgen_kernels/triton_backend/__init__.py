"""The operator as Triton kernels, for NVIDIA GPUs (and Triton's interpreter on the CPU, to test them).

Symbols are those of docs/operator.md, for one study, head, mask and query row: the window W, n keys outside it, logits s, M0, c,
L, lse, v_sum, g, t = g.v, delta. Logits carry a factor log2(e), so that exponentials are powers of two, and lse is the base-2
logarithm M0 + log2 L. Backward has the weights p = e^(s - lse) and u = e^-lse, whose sum Z = sum_W p + n u is 1 but for rounding.

Own projections: own/, and every call that the others have no kernels for. Projections that the masks share: shared/. Small
shapes: small/. Each has forward.py and backward.py; where backward takes two kernels, they are queries.py and keys.py.

Accuracy. float32 products are summed in the order of the elements on a GPU, so that a logit is the same number wherever it
is computed. A logit s is rounded by up to eps |s|, eps = 6e-8, and so are a weight p and what is made of it, relative to their
size: by p (1 - p) eps |s| in out and dq, as with eager PyTorch, and by p eps |s|, at most 4 times as much, in dk and dv, where
the weights are computed a second time (moments.py). Logits of 1e4 thus cost 6e-4 of a row whose weight is shared by several
keys, and nothing of a row with one dominant key.
"""

from __future__ import annotations

import math
from types import ModuleType

import torch
from torch import Tensor

from ..contract import MaskSpec

LSE_UNIT = math.log(2)
_MISSING: ImportError | None = None
try:
    from . import small
    from .own import backward as own_backward
    from .own import forward as own_forward
    from .plan import Call
    from .shared import backward as shared_backward
    from .shared import forward as shared_forward
    from .small import backward as small_backward
    from .small import forward as small_forward
except ImportError as error:
    _MISSING = error


def unavailable(device_type: str, dtype: torch.dtype) -> str | None:
    """Why the Triton kernels cannot run there, or None."""
    if _MISSING is not None:
        return f"Triton cannot be imported ({_MISSING}): pip install triton"
    from triton import knobs

    if dtype == torch.float64:
        return "the Triton kernels compute float32, float16 and bfloat16, not float64"
    if device_type == "cuda":
        return None
    if device_type != "cpu" or not knobs.runtime.interpret:
        return f"Triton kernels run on NVIDIA GPUs, not on {device_type} (TRITON_INTERPRET=1 tests them on the CPU)"
    if dtype == torch.bfloat16:
        return "Triton's interpreter computes bfloat16 products wrongly"
    return None


def _kernels(call: Call) -> tuple[ModuleType, ModuleType]:
    """The modules whose `forward` and `backward` compute a call."""
    if call.features:
        return own_forward, own_backward
    if small.fits(call.q, call.k):
        return small_forward, small_backward
    return (shared_forward, shared_backward) if call.shared else (own_forward, own_backward)


def unsupported(device_type: str, spec: MaskSpec, features: frozenset[str]) -> str | None:
    """These kernels compute every call."""
    return None


def forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    alpha: Tensor,
    centres: Tensor | None,
    key_mask: Tensor | None,
    spec: MaskSpec,
    *,
    needs_lse: bool,
) -> tuple[Tensor, Tensor]:
    """out (B, N, H, D), and lse (B, N, P, H), a base-2 logarithm, if `needs_lse`, else (0,)."""
    call = Call(q, k, v, alpha, centres, key_mask, spec)
    found: tuple[Tensor, Tensor] = _kernels(call)[0].forward(call, needs_lse=needs_lse)
    return found


def backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    alpha: Tensor,
    centres: Tensor | None,
    key_mask: Tensor | None,
    lse: Tensor,
    spec: MaskSpec,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Contiguous gradients of q, k, v, alpha."""
    call = Call(q, k, v, alpha, centres, key_mask, spec)
    found: tuple[Tensor, Tensor, Tensor, Tensor] = _kernels(call)[1].backward(call, grad, lse)
    return found

"""Checks of a call of the operator; each ValueError gives the expected and the received value.

Options are checked by the public function, tensors inside the registered ops, so that a direct call of torch.ops is
checked too.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor

from .contract import MASKINGS, MaskSpec, sum_dtype
from .windows import Order

DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
MAX_HEAD_DIM = 256
ORDERS = "orders >= 0 (0 = the whole grid) or pairs (height, width) >= 0"


def check_tensors(**tensors: Any) -> None:
    """Each is a dense tensor."""
    for name, x in tensors.items():
        if not isinstance(x, Tensor):
            raise ValueError(f"{name}: expected a tensor, got {type(x).__name__}")
        if x.layout != torch.strided:
            raise ValueError(f"{name}: expected a dense tensor (torch.strided), got {x.layout}")


def check_grid(grid: Any) -> tuple[int, int]:
    """Grid as (gh, gw)."""
    if not isinstance(grid, Sequence) or len(grid) != 2:
        raise ValueError(f"grid: expected (gh, gw), got {grid!r}")
    height, width = (_whole(size, "grid: expected two whole numbers (gh, gw)", grid) for size in grid)
    return height, width


def check_orders(orders: Any) -> tuple[Order, ...]:
    """Orders as whole numbers and pairs of them; a square pair other than (0, 0) is a number."""
    if not isinstance(orders, Sequence) or isinstance(orders, str):
        raise ValueError(f"orders: expected a sequence of {ORDERS}, got {orders!r}")
    return tuple(_order(order, orders) for order in orders)


def _order(order: Any, orders: Any) -> Order:
    wanted = f"orders: expected {ORDERS}"
    if not isinstance(order, Sequence):
        if (size := _whole(order, wanted, orders)) < 0:
            raise ValueError(f"{wanted}, got {orders!r}")
        return size
    if isinstance(order, str) or len(order) != 2:
        raise ValueError(f"{wanted}, got {orders!r}")
    height, width = (_whole(size, wanted, orders) for size in order)
    if height < 0 or width < 0:
        raise ValueError(f"{wanted}, got {orders!r}")
    return height if height == width > 0 else (height, width)


def _whole(number: Any, expected: str, got: Any) -> int:
    if isinstance(number, (int, torch.SymInt)):
        return cast("int", number)
    try:
        return operator.index(number)
    except TypeError:
        raise ValueError(f"{expected}, got {got!r}") from None


def check_masking(masking: Any) -> bool:
    """Whether masking is exclusive."""
    if masking not in MASKINGS:
        raise ValueError(f"masking: expected one of {', '.join(MASKINGS)}, got {masking!r}")
    return masking == "exclusive"


def check_scale(scale: Any, q: Tensor) -> float:
    """The factor of the logits; None means 1/sqrt(D)."""
    if scale is None:
        return q.shape[4] ** -0.5 if q.dim() == 5 and q.shape[4] > 0 else 1.0  # other shapes are refused next
    if not isinstance(scale, (int, float, torch.SymFloat)) or not abs(cast("float", scale)) < math.inf:
        raise ValueError(f"scale: expected a finite number or None (1/sqrt(D)), got {scale!r}")
    return float(scale)


def check_call(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    alpha: Tensor,
    centres: Tensor | None,
    key_mask: Tensor | None,
    spec: MaskSpec,
) -> None:
    """The tensors of a call."""
    _check_shapes(q, k, v, alpha)
    _check_types(q, k, v, alpha)
    height, width = spec.grid
    if height < 1 or width < 1 or k.shape[1] % (height * width) != 0:
        wanted = f"gh * gw = M = {k.shape[1]} (axis 1 of k), or M a multiple of gh * gw for several views"
        raise ValueError(f"grid: expected {wanted}, got {spec.grid}")
    if len(spec.orders) != alpha.shape[-1]:
        wanted = f"{alpha.shape[-1]} orders, one for each column of alpha"
        raise ValueError(f"orders: expected {wanted}, got {spec.orders}")
    if centres is not None:
        _check_centres(centres, q, height * width)
    if key_mask is not None:
        _check_key_mask(key_mask, k)


def _check_shapes(q: Tensor, k: Tensor, v: Tensor, alpha: Tensor) -> None:
    for name, tensor, layout in (("q", q, "(B, N, P, H, D)"), ("k", k, "(B, M, P, H, D)"), ("v", v, "(B, M, P, H, D)")):
        if tensor.dim() != 5:
            raise ValueError(f"{name}: expected shape {layout}, got {tuple(tensor.shape)}")
    if alpha.dim() not in (2, 3):
        raise ValueError(f"alpha: expected shape (B, P) or (B, N, P), got {tuple(alpha.shape)}")
    for name, tensor in (("q", q), ("k", k), ("v", v), ("alpha", alpha)):
        if 0 in tensor.shape[1:]:
            wanted = "at least one element along every axis but the first"
            raise ValueError(f"{name}: expected {wanted}, got shape {tuple(tensor.shape)}")
    batch, rows, masks, heads, dim = q.shape
    if v.shape != k.shape:
        raise ValueError(f"v: expected the shape of k, {tuple(k.shape)}, got {tuple(v.shape)}")
    if k.shape[0] != batch or k.shape[2:] != q.shape[2:]:
        raise ValueError(f"k: expected ({batch}, M, {masks}, {heads}, {dim}) to match q, got {tuple(k.shape)}")
    if alpha.shape[0] != batch:
        raise ValueError(f"alpha: expected the batch size of q, {batch}, got {alpha.shape[0]}")
    if alpha.dim() == 3 and alpha.shape[1] != rows:
        raise ValueError(f"alpha: expected ({batch}, {rows}, P) with the rows of q, got {tuple(alpha.shape)}")
    if masks not in (1, alpha.shape[-1]):
        raise ValueError(
            f"q: expected the P axis (2) to be alpha's {alpha.shape[-1]} masks or 1 for shared projections, got {masks}"
        )
    if dim > MAX_HEAD_DIM:
        raise ValueError(f"q: expected a head dimension D of at most {MAX_HEAD_DIM}, got {dim}: use more heads")


def _check_types(q: Tensor, k: Tensor, v: Tensor, alpha: Tensor) -> None:
    for name, tensor in (("k", k), ("v", v), ("alpha", alpha)):
        if tensor.device != q.device:
            raise ValueError(f"{name}: expected the device of q, {q.device}, got {tensor.device}")
    for name, tensor in (("q", q), ("k", k), ("v", v), ("alpha", alpha)):
        if tensor.dtype not in DTYPES:
            wanted = ", ".join(str(dtype) for dtype in DTYPES)
            raise ValueError(f"{name}: expected dtype {wanted}, got {tensor.dtype}")
    for name, tensor in (("k", k), ("v", v)):
        if tensor.dtype != q.dtype:
            raise ValueError(f"{name}: expected the dtype of q, {q.dtype}, got {tensor.dtype}")
    if alpha.dtype != sum_dtype(q.dtype):
        raise ValueError(f"alpha: expected {sum_dtype(q.dtype)} (q is {q.dtype}), got {alpha.dtype}")


def _check_centres(centres: Tensor, q: Tensor, patches: int) -> None:
    batch, rows = q.shape[:2]
    if centres.dim() != 2 or centres.shape[0] not in (1, batch) or centres.shape[1] != rows:
        raise ValueError(f"centres: expected shape ({batch} or 1, {rows}) = (B or 1, N), got {tuple(centres.shape)}")
    if centres.dtype not in (torch.int64, torch.int32):
        raise ValueError(f"centres: expected int64 or int32, got {centres.dtype}")
    if centres.device != q.device:
        raise ValueError(f"centres: expected the device of q, {q.device}, got {centres.device}")
    # elsewhere the numbers would have to be waited for
    if type(centres) is Tensor and centres.device.type == "cpu" and centres.numel() > 0:
        least, largest = (int(x) for x in torch.aminmax(centres))
        if least < 0 or largest >= patches:
            wanted = f"patch numbers from 0 to gh * gw - 1 = {patches - 1}"
            raise ValueError(f"centres: expected {wanted}, got {least} to {largest}")


def _check_key_mask(key_mask: Tensor, k: Tensor) -> None:
    if tuple(key_mask.shape) != tuple(k.shape[:2]):
        raise ValueError(f"key_mask: expected shape (B, M) = {tuple(k.shape[:2])}, got {tuple(key_mask.shape)}")
    if key_mask.dtype != torch.bool:
        raise ValueError(f"key_mask: expected torch.bool (False = the key does not exist), got {key_mask.dtype}")
    if key_mask.device != k.device:
        raise ValueError(f"key_mask: expected the device of q, {k.device}, got {key_mask.device}")


def check_backward(grad: Tensor, q: Tensor, alpha: Tensor, lse: Tensor) -> None:
    """What backward takes beyond a call's own tensors."""
    batch, rows, _, heads, dim = q.shape
    for name, x, shape, dtype in (
        ("grad", grad, (batch, rows, heads, dim), q.dtype),
        ("lse", lse, (batch, rows, alpha.shape[-1], heads), sum_dtype(q.dtype)),
    ):
        if tuple(x.shape) != shape or x.dtype != dtype or x.device != q.device:
            got = f"{tuple(x.shape)} {x.dtype} on {x.device}"
            raise ValueError(f"{name}: expected {shape} {dtype} on {q.device}, got {got}")

"""What a query row gathers of its keys in backward, and what the key side needs of every row.

float32 alone has logits whose rounding shows: a logit of 1e4 is rounded by 5e-4, and so is every weight e^(s - lse) that is
computed from it. The query side divides by the sum Z of the very weights that it computed, so that a row with one dominant key
has the weight 1 to the last bit. The key side has no such sum. It takes over the one weight of a row that can exceed 3/4, and
the derivative of its logit, as the query side has them; the others, p <= 3/4, it computes again with an error of p eps |s|, where
eager PyTorch errs by p (1 - p) eps |s|.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import triton
import triton.language as tl
from torch import Tensor


class Moments(NamedTuple):
    """Sums over the keys so far, (ROWS,) each: of p, of p (t - reference), t = g.v, and of p t; the largest p, and t there."""

    total: Any
    slopes: Any
    products: Any
    top: Any
    reference: Any


class RowTerms(NamedTuple):
    """What the key side needs of every row and mask, float32, (B, P, H, N) each; the last three only with float32."""

    lse: Any  # base-2 logarithm
    delta: Any
    factor: Any  # alpha / Z
    masked: Any  # alpha u / Z, the weight of a masked key; only for windows of multiplicative masks
    bar: Any  # weights e^(s - lse) above it are the row's largest; inf where it is not dominant
    top: Any  # alpha times the largest weight
    top_slope: Any  # alpha times the derivative of its logit


def new_row_terms(like: Tensor, shape: tuple[int, int, int, int], *, wide: bool) -> RowTerms:
    """Memory for them, (B, P, H, N) each."""
    terms = like.new_empty(7 if wide else 4, *shape).unbind()
    return RowTerms(*terms[:4], *(terms[4:] if wide else [terms[0]] * 3))


@triton.jit
def zero_rows(ROWS: tl.constexpr):
    """(ROWS,) zeros."""
    return tl.zeros((ROWS,), tl.float32)


@triton.jit
def add_keys(moments, p, t):
    """The moments with a tile of keys, p (t - reference) of the tile, and how the reference moved.

    t is taken relative to its value at the largest p, so that nothing is left of a row with one dominant key.
    """
    tile_top = tl.max(p, 1)
    at_top = tl.max(tl.where(p == tile_top[:, None], t, float("-inf")), 1)
    reference = tl.where(tile_top > moments.top, at_top, moments.reference)
    change = moments.reference - reference
    relative = p * (t - reference[:, None])
    slopes = moments.slopes + moments.total * change + tl.sum(relative, 1)
    total = moments.total + tl.sum(p, 1)
    products = moments.products + tl.sum(p * t, 1)
    return Moments(total, slopes, products, tl.maximum(moments.top, tile_top), reference), relative, change


@triton.jit
def store_dominant(terms, at, exist, top, left, factor, Z):
    """Store what `weigh` takes over; left is t - delta at the largest p, and Z the sum of all."""
    tl.store(terms.bar + at, tl.where(top > 0.7 * Z, 0.75 * Z, float("inf")), mask=exist)
    tl.store(terms.top + at, factor * top, mask=exist)
    tl.store(terms.top_slope + at, factor * top * left, mask=exist)


@triton.jit
def weigh(s, t, terms, at, exist):
    """alpha times the weights and times the derivatives of the logits s, (KEYS, ROWS), -inf outside the window.

    A row that does not exist has weight 0.
    """
    lse = tl.load(terms.lse + at, mask=exist, other=float("inf"))
    factor = tl.load(terms.factor + at, mask=exist, other=0.0)
    delta = tl.load(terms.delta + at, mask=exist, other=0.0)
    bar = tl.load(terms.bar + at, mask=exist, other=float("inf"))
    top = tl.load(terms.top + at, mask=exist, other=0.0)
    top_slope = tl.load(terms.top_slope + at, mask=exist, other=0.0)
    p = tl.exp2(s - lse[None, :])
    dominant = p > bar[None, :]
    p *= factor[None, :]
    slope = p * (t - delta[None, :])
    return tl.where(dominant, top[None, :], p), tl.where(dominant, top_slope[None, :], slope)

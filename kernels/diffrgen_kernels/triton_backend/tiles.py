"""Rows of D elements as one or two tiles whose widths are powers of two: D = 96 is 64 + 32, where 128 would waste a quarter."""

import triton
import triton.language as tl


def split_dim(dim: int) -> tuple[int, int]:
    """(D0, D1): widths of the two tiles that hold `dim` elements with the least padding; D1 = 0 where one is enough.

    >>> split_dim(64), split_dim(96), split_dim(40), split_dim(19), split_dim(250)
    ((64, 0), (64, 32), (32, 16), (32, 0), (256, 0))
    """
    whole = max(16, triton.next_power_of_2(dim))
    half = whole // 2
    rest = max(16, triton.next_power_of_2(dim - half))
    return (half, rest) if half + rest < whole else (whole, 0)


@triton.jit
def offset(x, batch, mask, head):
    """Where the rows of one study, mask and head of a view begin."""
    return batch.to(tl.int64) * x.batch + mask * x.mask + head * x.head


@triton.jit
def load_rows(x, start, rows, valid, D: tl.constexpr, FROM: tl.constexpr, WIDTH: tl.constexpr):
    """(rows, WIDTH): elements FROM .. FROM + WIDTH - 1 of the rows that begin at `start`; zeros where there are none."""
    dims = FROM + tl.arange(0, WIDTH)
    pointers = x.data + start + rows[:, None].to(tl.int64) * x.row + dims[None, :] * x.dim
    mask = valid[:, None]
    if FROM + WIDTH > D:
        mask = mask & (dims < D)[None, :]
    return tl.load(pointers, mask=mask, other=0.0)


@triton.jit
def store_rows(x, start, rows, valid, value, D: tl.constexpr, FROM: tl.constexpr, WIDTH: tl.constexpr):
    """The reverse of `load_rows`, in the dtype of the view."""
    dims = FROM + tl.arange(0, WIDTH)
    pointers = x.data + start + rows[:, None].to(tl.int64) * x.row + dims[None, :] * x.dim
    tl.store(pointers, value.to(x.data.dtype.element_ty), mask=valid[:, None] & (dims < D)[None, :])


@triton.jit
def load_pair(x, start, rows, valid, D: tl.constexpr, D0: tl.constexpr, D1: tl.constexpr):
    """All D elements of the rows as two tiles; where D1 = 0 the second is the first again and is never used."""
    low = load_rows(x, start, rows, valid, D, 0, D0)
    high = low
    if D1 > 0:
        high = load_rows(x, start, rows, valid, D, D0, D1)
    return low, high


@triton.jit
def dot_pairs(a0, a1, b0, b1, D1: tl.constexpr):
    """(rows of a, rows of b): scalar products of the rows of two pairs."""
    products = tl.dot(a0, b0.T, input_precision="ieee")
    if D1 > 0:
        products = tl.dot(a1, b1.T, products, input_precision="ieee")
    return products


@triton.jit
def logits(q0, q1, k0, k1, exist, scale, D1: tl.constexpr):
    """(rows of q, keys): scale q.k, and -inf for keys that do not exist.

    The choice also keeps the product from being fused into a later difference, so that a logit of 1e4, rounded by 1e-3, is
    the same number wherever it is computed.
    """
    s = scale * dot_pairs(q0, q1, k0, k1, D1)
    return tl.where(exist[None, :], s, float("-inf"))


@triton.jit
def advance(s, top, total):
    """Bring logits s into the running maximum and sum of each row; also their weights and the factor of older sums."""
    new_top = tl.maximum(top, tl.max(s, 1))
    shift = tl.where(new_top == float("-inf"), 0.0, new_top)  # -inf: no key of the window yet
    weight = tl.exp2(s - shift[:, None])
    keep = tl.exp2(top - shift)
    return new_top, total * keep + tl.sum(weight, 1), weight, keep


@triton.jit
def add_product(acc0, acc1, weight, x0, x1, D1: tl.constexpr):
    """acc + weight @ x, for a pair."""
    narrow = weight.to(x0.dtype)
    acc0 = tl.dot(narrow, x0, acc0, input_precision="ieee")
    if D1 > 0:
        acc1 = tl.dot(narrow, x1, acc1, input_precision="ieee")
    return acc0, acc1


@triton.jit
def store_pair(x, start, rows, valid, value0, value1, D: tl.constexpr, D0: tl.constexpr, D1: tl.constexpr):
    """The reverse of `load_pair`."""
    store_rows(x, start, rows, valid, value0, D, 0, D0)
    if D1 > 0:
        store_rows(x, start, rows, valid, value1, D, D0, D1)


@triton.jit
def add_vector(acc0, acc1, factor, x, D: tl.constexpr, D0: tl.constexpr, D1: tl.constexpr):
    """acc + factor of each row times the D contiguous elements at x, for a pair."""
    acc0 += factor[:, None] * load_vector(x, 0, D0, D)[None, :]
    if D1 > 0:
        acc1 += factor[:, None] * load_vector(x, D0, D1, D)[None, :]
    return acc0, acc1


@triton.jit
def load_vector(x, FROM: tl.constexpr, WIDTH: tl.constexpr, D: tl.constexpr):
    """(WIDTH,): elements FROM .. FROM + WIDTH - 1 of the D contiguous ones at x."""
    dims = FROM + tl.arange(0, WIDTH)
    return tl.load(x + dims, mask=dims < D, other=0.0)

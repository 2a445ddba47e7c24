"""Rows of D elements as tiles whose widths TILES are powers of two: D = 96 is 64 + 32, where 128 would waste a quarter."""

import triton
import triton.language as tl


def split_dim(dim: int) -> tuple[int, ...]:
    """Widths of the one or two tiles that hold `dim` elements with the least padding.

    >>> split_dim(64), split_dim(96), split_dim(40), split_dim(19), split_dim(250)
    ((64,), (64, 32), (32, 16), (32,), (256,))
    """
    one = max(16, triton.next_power_of_2(dim))
    half = one // 2
    rest = max(16, triton.next_power_of_2(dim - half))
    return (half, rest) if half + rest < one else (one,)


@triton.jit
def offset(x, batch, mask, head):
    """Where the rows of one study, mask and head of a view begin."""
    return batch.to(tl.int64) * x.batch + mask * x.mask + head * x.head


@triton.jit
def _pointers(x, start, rows, dims):
    return x.data + start + rows[:, None].to(tl.int64) * x.row + dims[None, :] * x.dim


@triton.jit
def load_tile(x, start, rows, exist, D: tl.constexpr, FROM: tl.constexpr, WIDTH: tl.constexpr):
    """(rows, WIDTH): elements FROM .. FROM + WIDTH - 1 of the rows that begin at `start`; zeros if there are none."""
    dims = FROM + tl.arange(0, WIDTH)
    mask = exist[:, None]
    if FROM + WIDTH > D:
        mask = mask & (dims < D)[None, :]
    return tl.load(_pointers(x, start, rows, dims), mask=mask, other=0.0)


@triton.jit
def store_tile(x, start, rows, exist, value, D: tl.constexpr, FROM: tl.constexpr, WIDTH: tl.constexpr):
    """The reverse of `load_tile`, in the dtype of the view."""
    dims = FROM + tl.arange(0, WIDTH)
    value = value.to(x.data.dtype.element_ty)
    tl.store(_pointers(x, start, rows, dims), value, mask=exist[:, None] & (dims < D)[None, :])


@triton.jit
def load_tiles(x, start, rows, exist, D: tl.constexpr, TILES: tl.constexpr):
    """All D elements of the rows, a tuple of tiles."""
    tiles = ()
    for t in tl.static_range(len(TILES)):
        tiles += (load_tile(x, start, rows, exist, D, t * TILES[0], TILES[t]),)
    return tiles


@triton.jit
def store_tiles(x, start, rows, exist, tiles, D: tl.constexpr, TILES: tl.constexpr):
    """The reverse of `load_tiles`."""
    for t in tl.static_range(len(TILES)):
        store_tile(x, start, rows, exist, tiles[t], D, t * TILES[0], TILES[t])


@triton.jit
def _zero_tile(ROWS: tl.constexpr, WIDTH: tl.constexpr):
    return tl.zeros((ROWS, WIDTH), tl.float32)


@triton.jit
def zero_tiles(ROWS: tl.constexpr, TILES: tl.constexpr):
    """Sums of ROWS rows, all 0."""
    tiles = ()
    for t in tl.static_range(len(TILES)):
        tiles += (_zero_tile(ROWS, TILES[t]),)
    return tiles


@triton.jit
def dot_tiles(a, b, TILES: tl.constexpr):
    """(rows of a, rows of b): the scalar products of their rows.

    float32 products are summed in the order of the elements, so that a and b swapped give the same numbers.
    """
    products = tl.dot(a[0], b[0].T, input_precision="ieee")
    for t in tl.static_range(1, len(TILES)):
        products = tl.dot(a[t], b[t].T, products, input_precision="ieee")
    return products


@triton.jit
def logits(q, k, exist, scale, TILES: tl.constexpr):
    """(rows of q, keys): scale q.k, and -inf for keys that do not exist.

    The choice also keeps the product from being fused into a later difference, so that a logit of 1e4, rounded by 1e-3, is
    the same number wherever it is computed.
    """
    s = scale * dot_tiles(q, k, TILES)
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
def scaled(tiles, factor, TILES: tl.constexpr):
    """The rows of the tiles times a factor each."""
    products = ()
    for t in tl.static_range(len(TILES)):
        products += (tiles[t] * factor[:, None],)
    return products


@triton.jit
def plus(a, b, TILES: tl.constexpr):
    """a + b."""
    sums = ()
    for t in tl.static_range(len(TILES)):
        sums += (a[t] + b[t],)
    return sums


@triton.jit
def add_product(acc, weight, x, TILES: tl.constexpr):
    """acc + weight @ x."""
    narrow = weight.to(x[0].dtype)
    sums = ()
    for t in tl.static_range(len(TILES)):
        sums += (tl.dot(narrow, x[t], acc[t], input_precision="ieee"),)
    return sums


@triton.jit
def load_vector(x, FROM: tl.constexpr, WIDTH: tl.constexpr, D: tl.constexpr):
    """(WIDTH,): elements FROM .. FROM + WIDTH - 1 of the D contiguous ones at x."""
    dims = FROM + tl.arange(0, WIDTH)
    return tl.load(x + dims, mask=dims < D, other=0.0)


@triton.jit
def add_vector(acc, factor, x, D: tl.constexpr, TILES: tl.constexpr):
    """acc + factor of each row times the D contiguous elements at x."""
    sums = ()
    for t in tl.static_range(len(TILES)):
        sums += (acc[t] + factor[:, None] * load_vector(x, t * TILES[0], TILES[t], D)[None, :],)
    return sums


@triton.jit
def dot_vector(a, x, D: tl.constexpr, TILES: tl.constexpr):
    """(rows of a,): the scalar product of each row with the D contiguous elements at x."""
    product = tl.sum(a[0].to(tl.float32) * load_vector(x, 0, TILES[0], D)[None, :], 1)
    for t in tl.static_range(1, len(TILES)):
        product += tl.sum(a[t].to(tl.float32) * load_vector(x, t * TILES[0], TILES[t], D)[None, :], 1)
    return product


@triton.jit
def store_row_sum(x, weight, tile, D: tl.constexpr, FROM: tl.constexpr, WIDTH: tl.constexpr):
    """Store sum_rows weight tile, elements FROM .. FROM + WIDTH - 1 of the D contiguous ones at x."""
    dims = FROM + tl.arange(0, WIDTH)
    tl.store(x + dims, tl.sum(tile.to(tl.float32) * weight[:, None], 0), mask=dims < D)

"""The windows of Eq. 6 from index arithmetic, inside a kernel; no mask is ever read from memory.

Query row i belongs to patch i mod M. A block of rows lies in one cycle of M rows, so its patches are consecutive: they
touch consecutive grid rows, and the keys that their windows can hold are one run of patches.
"""

import triton
import triton.language as tl


@triton.jit
def element_of(numbers: tl.constexpr, index):
    """numbers[index], for a constant tuple and a run-time index."""
    value = numbers[0]
    for i in tl.static_range(1, len(numbers)):
        value = tl.where(index == i, numbers[i], value)
    return value


@triton.jit
def rows_of_block(block, N, M, ROWS: tl.constexpr):
    """Patches and rows of a block, and which of them exist: (ROWS,) each; and the block's first patch."""
    blocks_per_cycle = tl.cdiv(tl.minimum(N, M), ROWS)
    first = block % blocks_per_cycle * ROWS
    patches = first + tl.arange(0, ROWS)
    rows = block // blocks_per_cycle * M + patches
    return first, patches, rows, (patches < M) & (rows < N)


@triton.jit
def window_run(first, order, M, gh, gw, COUNT: tl.constexpr):
    """First and one past the last patch that a window of patches first .. first + COUNT - 1 can hold."""
    top = tl.maximum(first // gw - order, 0)
    bottom = tl.minimum(tl.minimum(first + COUNT - 1, M - 1) // gw + order, gh - 1)
    return top * gw, (bottom + 1) * gw


@triton.jit
def outside_count(patches, order, gh, gw):
    """M - w: the number of patches outside the window of each patch."""
    y, x = patches // gw, patches % gw
    height = tl.minimum(y + order, gh - 1) - tl.maximum(y - order, 0) + 1
    width = tl.minimum(x + order, gw - 1) - tl.maximum(x - order, 0) + 1
    return gh * gw - height * width


@triton.jit
def patch_distance(patches, keys, gw):
    """The order of the smallest window of patch i that holds key patch l; the arguments broadcast."""
    return tl.maximum(tl.abs(patches // gw - keys // gw), tl.abs(patches % gw - keys % gw))


@triton.jit
def outside_run(index, begin, end):
    """The index-th patch that does not lie in begin .. end - 1."""
    return index + tl.where(index >= begin, end - begin, 0)


@triton.jit
def far_keys(first, far, begin, end, KEYS: tl.constexpr):
    """The tile from the first-th of the `far` patches outside begin .. end - 1, and which of its patches exist."""
    index = first + tl.arange(0, KEYS)
    return outside_run(index, begin, end), index < far


@triton.jit
def window_mask(patches, keys, exist, order, gw):
    """(patches, keys): whether key patch l exists and lies in the window of patch i.

    Unsigned differences, so that one comparison is enough.
    """
    down = tl.where(exist, keys // gw, 1 << 30)[None, :] - (patches // gw - order)[:, None]
    across = (keys % gw)[None, :] - (patches % gw - order)[:, None]
    return tl.maximum(down.to(tl.uint32), across.to(tl.uint32)) <= (2 * order).to(tl.uint32)

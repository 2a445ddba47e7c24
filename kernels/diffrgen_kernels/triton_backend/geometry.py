"""The windows of Eq. 6 from index arithmetic, inside a kernel; no mask is ever read from memory.

A row's window lies round its centre, a patch of the grid: patch i mod (gh gw) for row i, or the one that `centres` names. The
keys are one grid of patches or several ("views") one after the other, and a window is the same patches of each.

A block of rows lies in one cycle of gh gw rows, so that its centres are consecutive patches; with `centres`, rows are taken
in the order of the grid rows of their centres. Either way the patches that the windows of a block can hold are one run of
grid rows.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import triton
import triton.language as tl


class Rows(NamedTuple):
    """A block of query rows, (ROWS,) each, and the grid rows of the first and last centre."""

    row: Any
    centre: Any
    exist: Any
    top: Any
    bottom: Any


class Keys(NamedTuple):
    """A tile of keys, (KEYS,) each."""

    key: Any
    patch: Any
    exist: Any


class Window(NamedTuple):
    """Patches above (and below) and left (and right) of a window's centre."""

    height: Any
    width: Any


@triton.jit
def element_of(numbers: tl.constexpr, index):
    """numbers[index], for a constant tuple and a run-time index."""
    value = numbers[0]
    for i in tl.static_range(1, len(numbers)):
        value = tl.where(index == i, numbers[i], value)
    return value


@triton.jit
def window_of(HEIGHTS: tl.constexpr, WIDTHS: tl.constexpr, j):
    """The window of mask j."""
    return Window(element_of(HEIGHTS, j), element_of(WIDTHS, j))


@triton.jit
def rows_by_centre(centres, b, index, exist, shape):
    """The index-th rows in the order of their centres, and the centres."""
    at = b * shape.N + index
    row = tl.load(centres.rows + at, mask=exist, other=0)
    return row, tl.load(centres.patches + at, mask=exist, other=0)


@triton.jit
def rows_of_block(block, b, centres, shape, GW: tl.constexpr, ROWS: tl.constexpr, CENTRES: tl.constexpr):
    """A block of rows: consecutive ones of one cycle, or with CENTRES rows whose centres lie together."""
    patches = shape.gh * GW
    if CENTRES:
        at = block * ROWS + tl.arange(0, ROWS)
        exist = at < shape.N
        index, centre = rows_by_centre(centres, b, at, exist, shape)
        top = tl.min(tl.where(exist, centre // GW, shape.gh), 0)
        bottom = tl.max(tl.where(exist, centre // GW, 0), 0)
    else:
        blocks_per_cycle = tl.cdiv(tl.minimum(shape.N, patches), ROWS)
        first = block % blocks_per_cycle * ROWS
        centre = first + tl.arange(0, ROWS)
        index = block // blocks_per_cycle * patches + centre
        exist = (centre < patches) & (index < shape.N)
        top = first // GW
        bottom = tl.minimum(first + ROWS - 1, patches - 1) // GW
    return Rows(index, centre, exist, top, bottom)


@triton.jit
def row_blocks(shape, GW: tl.constexpr, ROWS: tl.constexpr, CENTRES: tl.constexpr):
    """Blocks of rows of one study and head."""
    blocks = tl.cdiv(shape.N, ROWS)
    if not CENTRES:
        patches = shape.gh * GW
        blocks = tl.cdiv(shape.N, patches) * tl.cdiv(tl.minimum(shape.N, patches), ROWS)
    return blocks


@triton.jit
def window_run(top, bottom, height, shape, GW: tl.constexpr):
    """First and one past the last patch within `height` grid rows of the grid rows top .. bottom."""
    return tl.maximum(top - height, 0) * GW, (tl.minimum(bottom + height, shape.gh - 1) + 1) * GW


@triton.jit
def tile_bounds(begin, end, shape, GW: tl.constexpr, KEYS: tl.constexpr, VIEWS: tl.constexpr):
    """First and one past the last number that `keys_of_tile` takes for the patches begin .. end - 1 of every view."""
    start, stop = begin, end
    if VIEWS:
        start, stop = 0, shape.M // (shape.gh * GW) * (tl.cdiv(end - begin, KEYS) * KEYS)
    return start, stop


@triton.jit
def keys_of_tile(
    first, begin, end, b, key_mask, shape,
    GW: tl.constexpr, KEYS: tl.constexpr, VIEWS: tl.constexpr, KEY_MASK: tl.constexpr,
):  # fmt: skip
    """A tile of the keys that lie in the run begin .. end - 1 of patches; with VIEWS, of one view after the other."""
    if VIEWS:
        padded = tl.cdiv(end - begin, KEYS) * KEYS
        patch = begin + first % padded + tl.arange(0, KEYS)
        index = first // padded * (shape.gh * GW) + patch
    else:
        patch = first + tl.arange(0, KEYS)
        index = patch
    exist = patch < end
    if KEY_MASK:
        exist = present(key_mask, b, index, exist, shape)
    return Keys(index, patch, exist)


@triton.jit
def present(key_mask, b, index, exist, shape):
    """Which keys exist and are not masked away."""
    return tl.load(key_mask + b.to(tl.int64) * shape.M + index, mask=exist, other=0) != 0


@triton.jit
def outside_count(centres, window, gh, gw):
    """Patches outside the window round each centre."""
    y, x = centres // gw, centres % gw
    height = tl.minimum(y + window.height, gh - 1) - tl.maximum(y - window.height, 0) + 1
    width = tl.minimum(x + window.width, gw - 1) - tl.maximum(x - window.width, 0) + 1
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
    """The tile from the first-th of the `far` patches outside begin .. end - 1."""
    index = first + tl.arange(0, KEYS)
    patch = outside_run(index, begin, end)
    return Keys(patch, patch, index < far)


@triton.jit
def window_mask(centres, patches, exist, window, gw, SQUARE: tl.constexpr):
    """(centres, patches): whether a patch exists and lies in the window round a centre; the two can be swapped.

    Unsigned differences, so that one comparison is enough.
    """
    down = tl.where(exist, patches // gw, 1 << 30)[None, :] - (centres // gw - window.height)[:, None]
    across = (patches % gw)[None, :] - (centres % gw - window.width)[:, None]
    if SQUARE:
        inside = tl.maximum(down.to(tl.uint32), across.to(tl.uint32)) <= (2 * window.height).to(tl.uint32)
    else:
        high, wide = (2 * window.height).to(tl.uint32), (2 * window.width).to(tl.uint32)
        inside = (down.to(tl.uint32) <= high) & (across.to(tl.uint32) <= wide)
    return inside

"""The bit depth of pixels in a larger container, such as 12-bit radiographs in 16-bit files."""

from __future__ import annotations

DEPTHS = (8, 10, 12, 14, 16)


def depth_of(most: int) -> int:
    """Return the least of 8, 10, 12, 14, 16 bits that hold `most`, 0..65535."""
    return next(depth for depth in DEPTHS if most < 1 << depth)

"""An image file read as far as a transform needs it: decoded to grey, then resized."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import PIL
from PIL import Image

from diffrgen.images.grey import probe_png, read_grey

ReadImage = Callable[[Path, int | None], Image.Image]
"""Reads a file for a transform with such a `resize`, None for the whole image: see `read_resized`."""

# Incremented when decoding or resizing changes pixels: cached images are then decoded again.
RECIPE = 1
# For a longer image only the crop is resized: the complete image, `resize` pixels wide, could be very large.
LONGEST = 8


def decoder_version() -> str:
    """Return what the pixels of `read_resized` depend on besides the file."""
    return f"recipe {RECIPE}, Pillow {PIL.__version__}"


def resized_size(size: tuple[int, int], resize: int) -> tuple[int, int]:
    """Return (width, height) of an image of `size` once its shorter side has `resize` pixels."""
    width, height = (max(resize, int(resize * side / min(size))) for side in size)
    return width, height


def can_resize(size: tuple[int, int]) -> bool:
    """Return whether an image of `size` is resized as a whole: where it is at most LONGEST times as long as wide."""
    return max(size) <= LONGEST * min(size)


def resized(image: Image.Image, resize: int) -> Image.Image:
    """Return `image` with `resize` pixels on its shorter side, bilinear with antialiasing; a strip stays as it is.

    What has been resized before is returned unchanged.
    """
    if not can_resize(image.size):
        return image
    return image.resize(resized_size(image.size, resize), Image.Resampling.BILINEAR)


def read_resized(path: Path, resize: int | None = None) -> Image.Image:
    """Return the image file `path` as `resized` grey of mode "L"; whole where `resize` is None.

    NOTE: a JPEG is decoded at the least of 1/1, 1/2, 1/4 and 1/8 of its size that leaves `resize` pixels. Everything that
    shows an image to a network reads it by this function, so that all see the same pixels.

    Raises DataError as `read_grey` does.
    """
    image = read_grey(path, at_least=resize)
    return image if resize is None else resized(image, resize)


@dataclass(frozen=True)
class ResizedImages:
    """An image that was decoded elsewhere: what `read_resized` gives for each `resize` that networks ask for."""

    by_size: Mapping[int | None, Image.Image]

    @property
    def pixels(self) -> int:
        """The pixels of all sizes together."""
        return sum(image.width * image.height for image in self.by_size.values())

    def at(self, resize: int | None) -> Image.Image:
        """Return the image for `resize`; ValueError if that was not asked for when it was decoded."""
        if resize not in self.by_size:
            raise ValueError(f"expected one of the sizes {list(self.by_size)}, got {resize}")
        return self.by_size[resize]


def read_checked(path: Path, resize: int) -> Image.Image:
    """Return what `read_resized` does; DataError also for a PNG whose checksums are wrong, as `probe_grey` raises."""
    probe_png(path)
    return read_resized(path, resize)

"""A radiograph read from a file as an 8-bit grey image, or a clear error."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from diffrgen.errors import DataError
from diffrgen.images.dicom import START, has_dicom_mark, read_dicom

# A detector of 43 x 43 cm at 0.1 mm has 18.5 million pixels; this leaves room for five of them.
MAX_PIXELS = 89_478_485

DEPTHS = (8, 10, 12, 14, 16)
WIDE_MODES = frozenset({"I", "I;16", "I;16L", "I;16B", "I;16N"})
ALPHA_MODES = frozenset({"LA", "La", "PA", "RGBA", "RGBa"})

# What Pillow's decoders raise on damaged files: the first three were seen on 12,000 cut off or altered PNG,
# JPEG, TIFF, GIF, BMP and WebP files, IndexError on a PNG without pixels; its own plugins guard against the others.
DECODER_ERRORS = (OSError, SyntaxError, ValueError, EOFError, struct.error, IndexError, TypeError)


def read_grey(path: str | Path, *, at_least: int | None = None) -> Image.Image:
    """Return the image file `path` as mode "L", upright as its EXIF orientation says.

    8-bit grey, RGB, palette and CMYK are converted by Pillow's luma; what is transparent becomes black.
    16-bit grey v is scaled to round(255 v / (2^b - 1)), b the least of 8, 10, 12, 14, 16 with max(v) < 2^b.

    at_least: where given, a JPEG may be decoded at 1/2, 1/4 or 1/8 of its size as long as its shorter side
        keeps this many pixels, which saves time where the image is made smaller anyway.

    A DICOM file is shown as `diffrgen.images.dicom.read_dicom` says.

    DataError names the file and what came: missing, a folder, empty, no image, damaged, over `MAX_PIXELS`
    pixels, a pixel type with no known range (32-bit float).
    """
    file = Path(path)
    if _is_dicom(file):
        return read_dicom(file, max_pixels=MAX_PIXELS)
    with _opened(file) as image:
        if at_least is not None:
            image.draft(None, (at_least, at_least))
        # Wide greys are reduced first: turning them after is the same, and not every mode can be turned.
        grey = _grey(image, file)
        return _upright(grey, image)


def probe_grey(path: str | Path, *, max_pixels: int = MAX_PIXELS) -> None:
    """Raise the DataError that `read_grey(path)` would raise for a damaged file, without decoding all of it.

    PNG: every chunk's checksum. JPEG: decoded at 1/8 size, which reads every coefficient. Others: read in
    full. max_pixels: a tighter limit than that of `read_grey`.
    """
    file = Path(path)
    if _is_dicom(file):
        read_dicom(file, max_pixels=max_pixels)
        return
    if not probe_png(file, max_pixels=max_pixels):
        with _opened(file, max_pixels) as image:
            _check_mode(image, file)
            image.draft(None, (1, 1))
            image.load()


def probe_png(path: str | Path, *, max_pixels: int = MAX_PIXELS) -> bool:
    """Compare every chunk's checksum where `path` is a PNG, and return whether it is one; DataError for a damaged file."""
    file = Path(path)
    if _is_dicom(file):
        return False
    with _opened(file, max_pixels) as image:
        if image.format != "PNG":
            return False
        _check_mode(image, file)
        image.verify()
        return True


@contextmanager
def _opened(file: Path, max_pixels: int = MAX_PIXELS) -> Iterator[Image.Image]:
    """Open `file`; any decoder's error within the block becomes a DataError."""
    if not file.is_file():
        what = "is not a plain file" if file.exists() else "does not exist"
        raise DataError(f"expected an image file, got {file}, which {'is a folder' if file.is_dir() else what}")
    try:
        if not _start(file, 1):
            raise DataError(f"{file}: expected an image, got an empty file (0 bytes)")
        with Image.open(file) as image:
            if image.width * image.height > max_pixels:
                raise DataError(f"{file}: {image.width} x {image.height} pixels are over the limit of {max_pixels}")
            yield image
    except DataError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(f"{file}: over the limit of {MAX_PIXELS} pixels: {error}") from error
    except UnidentifiedImageError as error:
        # No more than a mark of its kind: a file may be a headless DICOM, which begins with the patient's tags.
        start = _start(file, 4)
        raise DataError(f"{file}: expected an image (PNG, JPEG), got a file that begins with {start!r}") from error
    except DECODER_ERRORS as error:
        # The system's own errors carry a number, Pillow's carry none.
        if isinstance(error, OSError) and error.errno is not None:
            raise DataError(f"{file} cannot be read: {error.strerror}") from error
        raise DataError(f"{file}: the image is damaged or cut off ({type(error).__name__}: {error})") from error


def _is_dicom(file: Path) -> bool:
    """Whether a file says so: by the mark behind its preamble, or by its name where it lacks the mark."""
    try:
        start = _start(file, START)
    except OSError:
        return False  # `_opened` says what is wrong with it
    return has_dicom_mark(start) or (start != b"" and file.suffix.lower() in {".dcm", ".dicom"})


def _start(file: Path, count: int) -> bytes:
    with file.open("rb") as stream:
        return stream.read(count)


def _check_mode(image: Image.Image, file: Path) -> None:
    if image.mode == "F":
        raise DataError(f"{file}: expected 8- or 16-bit pixels, got 32-bit float, whose range is not known")


def _grey(image: Image.Image, file: Path) -> Image.Image:
    _check_mode(image, file)
    if image.mode in WIDE_MODES:
        return _narrowed(np.asarray(image), file)
    if image.mode in ALPHA_MODES or "transparency" in image.info:
        opaque = image.convert("RGBA")
        black = Image.new("RGBA", opaque.size, (0, 0, 0, 255))
        return Image.alpha_composite(black, opaque).convert("L")
    return image.convert("L")


def _narrowed(values: np.ndarray, file: Path) -> Image.Image:
    """Return 16-bit grey `values` (H, W) as 8-bit by the depth that their maximum implies."""
    least, most = int(values.min()), int(values.max())
    if least < 0 or most > 65535:
        raise DataError(f"{file}: expected pixels in 0..65535, got {least}..{most}")
    depth = next(depth for depth in DEPTHS if most < 1 << depth)
    top = (1 << depth) - 1
    table = np.round(np.arange(top + 1) * (255.0 / top)).astype(np.uint8)
    return Image.fromarray(table[values])


def _upright(grey: Image.Image, image: Image.Image) -> Image.Image:
    """Return `grey` turned as the EXIF orientation of `image` says."""
    orientation = image.getexif().get(0x0112, 1)
    if orientation == 1:
        return grey
    grey.info.clear()
    exif = grey.getexif()
    exif[0x0112] = orientation
    return ImageOps.exif_transpose(grey)

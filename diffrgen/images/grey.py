"""A radiograph read from a file as an 8-bit grey image, or a clear error."""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from diffrgen.errors import DataError
from diffrgen.images.codestream import JPEG_SIGNATURE, MAX_EXIF, PNG_SIGNATURE, check_png, jpeg_frames
from diffrgen.images.depth import depth_of
from diffrgen.images.dicom import START, has_dicom_mark, read_dicom

# A detector of 43 x 43 cm at 0.1 mm has 18.5 million pixels; this leaves room for five of them.
MAX_PIXELS = 89_478_485

# Rows converted at a time, so that memory holds an image once in its own mode and once in grey.
STRIP = 256

WIDE_MODES = frozenset({"I", "I;16", "I;16L", "I;16B", "I;16N"})
ALPHA_MODES = frozenset({"LA", "La", "PA", "RGBA", "RGBa"})

# What Pillow's decoders raise on damaged files: the first three were seen on 12,000 cut off or altered files, IndexError on
# a PNG without pixels; its own plugins guard against the others.
DECODER_ERRORS = (OSError, SyntaxError, ValueError, EOFError, struct.error, IndexError, TypeError)


def read_grey(path: str | Path, *, at_least: int | None = None) -> Image.Image:
    """Return the PNG or JPEG file `path` as mode "L", upright by its EXIF orientation.

    8-bit grey, RGB, palette and CMYK are converted by Pillow's luma; what is transparent becomes black.
    16-bit grey v is scaled to round(255 v / (2^b - 1)), b the least of 8, 10, 12, 14, 16 with max(v) < 2^b.

    at_least: where given, a JPEG may be decoded at 1/2, 1/4 or 1/8 of its size as long as its shorter side
        keeps this many pixels, which saves time where the image is made smaller anyway.

    A DICOM file is displayed by `diffrgen.images.dicom.read_dicom`.

    DataError names the file and what came: missing, a folder, empty, no image, another format, damaged, over `MAX_PIXELS`
    pixels or the limits of `diffrgen.images.codestream`.
    """
    file = Path(path)
    if _is_dicom(file):
        return read_dicom(file, max_pixels=MAX_PIXELS)
    with _opened(file) as image:
        if at_least is not None:
            image.draft(None, (at_least, at_least))
        # 16- and 32-bit greys are converted to 8 bits before the rotation, because Pillow cannot rotate every mode.
        grey = _grey(image, file)
        return _upright(grey, image, file)


def probe_grey(path: str | Path, *, max_pixels: int = MAX_PIXELS) -> None:
    """Raise the DataError that `read_grey(path)` would raise for a damaged file, without decoding all of it.

    PNG: every chunk's checksum. JPEG: decoded at 1/8 size, which reads every coefficient. DICOM: read in full.
    max_pixels: a tighter limit than that of `read_grey`.
    """
    file = Path(path)
    if _is_dicom(file):
        read_dicom(file, max_pixels=max_pixels)
        return
    if not probe_png(file, max_pixels=max_pixels):
        with _opened(file, max_pixels) as image:
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
        # Only two of Pillow's 43 formats are allowed: others include interpreters (EPS starts Ghostscript) and further risks.
        with Image.open(file, formats=[_checked_format(file, max_pixels)]) as image:
            _check_size(file, image.width, image.height, max_pixels)
            yield image
    except DataError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(f"{file}: over the limit of {MAX_PIXELS} pixels: {error}") from error
    except UnidentifiedImageError as error:
        raise DataError(_other_format(file)) from error
    except DECODER_ERRORS as error:
        # Errors of the operating system have a number, Pillow's have none.
        if isinstance(error, OSError) and error.errno is not None:
            raise DataError(f"{file} cannot be read: {error.strerror}") from error
        raise DataError(f"{file}: the image is damaged or cut off ({type(error).__name__}: {error})") from error


def _checked_format(file: Path, max_pixels: int) -> Literal["PNG", "JPEG"]:
    """Return the format that `file` begins like, once its segments are within the limits that hold before decoding."""
    with file.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if data[: len(PNG_SIGNATURE)] == PNG_SIGNATURE:
            check_png(data, str(file), max_bytes=4 * MAX_PIXELS)
            return "PNG"
        if data[: len(JPEG_SIGNATURE)] != JPEG_SIGNATURE:
            raise DataError(_other_format(file))
        for frame in jpeg_frames(data, str(file)):
            _check_size(file, frame.width, frame.height, max_pixels)
        return "JPEG"


def _check_size(file: Path, width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise DataError(f"{file}: {width} x {height} pixels are over the limit of {max_pixels}")


def _other_format(file: Path) -> str:
    if _start(file, len(PNG_SIGNATURE)).startswith((PNG_SIGNATURE, JPEG_SIGNATURE)):
        return f"{file}: the image is damaged or cut off (its header cannot be read)"
    # At most the bytes of a format mark: a DICOM file without a header begins with the patient's tags.
    return f"{file}: expected an image (PNG, JPEG), got a file that begins with {_start(file, 4)!r}"


def _is_dicom(file: Path) -> bool:
    """Whether a file is DICOM: by the mark behind its preamble, or by its name where it lacks the mark."""
    try:
        start = _start(file, START)
    except OSError:
        return False  # `_opened` reports the fault
    return has_dicom_mark(start) or (start != b"" and file.suffix.lower() in {".dcm", ".dicom"})


def _start(file: Path, count: int) -> bytes:
    with file.open("rb") as stream:
        return stream.read(count)


def _grey(image: Image.Image, file: Path) -> Image.Image:
    image.load()
    if image.mode in WIDE_MODES:
        return _narrowed(image, file)
    if image.mode in ALPHA_MODES or "transparency" in image.info:
        return _on_black(image)
    return image.convert("L")


def _on_black(image: Image.Image) -> Image.Image:
    """Return `image` as grey with what is transparent black, a strip at a time."""
    grey = Image.new("L", image.size)
    for top in range(0, image.height, STRIP):
        # A crop keeps what a palette calls transparent.
        opaque = image.crop((0, top, image.width, min(top + STRIP, image.height))).convert("RGBA")
        black = Image.new("RGBA", opaque.size, (0, 0, 0, 255))
        grey.paste(Image.alpha_composite(black, opaque).convert("L"), (0, top))
    return grey


def _narrowed(image: Image.Image, file: Path) -> Image.Image:
    """Return 16-bit grey as 8-bit by the depth that its maximum implies."""
    values = np.asarray(image)  # (H, W)
    least, most = int(values.min()), int(values.max())
    if least < 0 or most > 65535:
        raise DataError(f"{file}: expected pixels in 0..65535, got {least}..{most}")
    top = (1 << depth_of(most)) - 1
    table = np.round(np.arange(top + 1) * (255.0 / top)).astype(np.uint8)
    grey = np.empty(values.shape, dtype=np.uint8)
    for row in range(0, len(values), STRIP):
        grey[row : row + STRIP] = table[values[row : row + STRIP]]
    return Image.fromarray(grey)


def _upright(grey: Image.Image, image: Image.Image, file: Path) -> Image.Image:
    """Return `grey` rotated by the EXIF orientation of `image`."""
    # ImageMagick writes EXIF into a PNG's texts as hexadecimal digits.
    if len(image.info.get("Raw profile type exif", "")) > 2 * MAX_EXIF:
        raise DataError(f"{file}: the PNG's EXIF block is over the limit of {MAX_EXIF:,} bytes")
    orientation = image.getexif().get(0x0112, 1)
    if orientation == 1:
        return grey
    grey.info.clear()
    exif = grey.getexif()
    exif[0x0112] = orientation
    return ImageOps.exif_transpose(grey)

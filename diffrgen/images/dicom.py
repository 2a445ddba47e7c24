"""A radiograph read from a DICOM file as an 8-bit grey image, as the viewing station would show it.

Of its tags nothing is kept, and no message quotes one: any of them may hold the patient's name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import numpy as np
from PIL import Image

from diffrgen.errors import DataError
from diffrgen.images.attributes import NEEDED, number_of, text_of, value_of, whole_number
from diffrgen.images.codestream import jpeg2000_frame, jpeg_frames
from diffrgen.images.depth import depth_of
from diffrgen.images.display import is_padding, shown
from diffrgen.images.silence import silent_dicom

if TYPE_CHECKING:
    from pydicom import Dataset
    from pydicom.uid import UID

INSTALL = 'DICOM needs pydicom and its decoders: pip install "diffrgen[dicom]"'
# The bytes that identify a DICOM file: its preamble, then the mark.
START = 132
# A data set without the mark begins with a tag of group 0002 or 0008.
UNMARKED = (b"\x02\x00", b"\x08\x00")
GREY, COLOUR = (
    ("MONOCHROME1", "MONOCHROME2"),
    ("PALETTE COLOR", "RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT"),
)
FLOAT_BITS = {"FloatPixelData": 32, "DoubleFloatPixelData": 64}
# Maximum reads of a file, about two per element: a radiograph has about a hundred elements, a private sequence thousands.
MAX_READS = 100_000
# Maximum fragments of a compressed image, and bytes of the offset table before them: one image has one entry.
MAX_FRAGMENTS, MAX_OFFSETS = 10_000, 4_096
# The first tag of pixel data, of any kind.
PIXELS = 0x7FE00000
# Rows converted at a time.
STRIP = 256


def has_dicom_mark(start: bytes) -> bool:
    """Return whether `start`, the first START bytes of a file or more, holds the mark behind the preamble."""
    return start[128:START] == b"DICM"


def read_dicom(file: Path, *, max_pixels: int) -> Image.Image:
    """Return the picture of the DICOM file `file` as mode "L".

    Grey values are displayed by `diffrgen.images.display`, padding black. Colour becomes luma, of the bits that it has.

    Raises:
        DataError: pydicom or a decoder is missing, no picture or several frames, an attribute without which nothing can
            be shown is missing or odd (by its name), over `max_pixels`, by the tags or by the compressed picture itself,
            or damaged.
    """
    try:
        import pydicom  # noqa: F401
    except ImportError as error:
        raise DataError(f"{file}: {INSTALL}") from error
    try:
        with silent_dicom():
            dataset = _dataset(file)
            return _picture(dataset, file, _checked_syntax(dataset, file, max_pixels))
    except DataError:
        raise
    except Exception as error:  # pydicom and its decoders raise nearly every built-in exception on damaged files
        kind = type(error).__name__
    # Raised outside the handler: the error is not chained, so no traceback shows the value that it quotes.
    raise DataError(
        f"{file}: the DICOM file is damaged or cannot be shown ({kind}; the details are left out, as they may quote the "
        "patient's tags)"
    )


class CountedReads:
    """A file that ends its reader after MAX_READS reads: one of millions of elements would take minutes and gigabytes.

    It does not hand out all of its bytes at once either, which pydicom asks for to inflate a data set that is compressed as
    a whole: a small file may claim any amount of memory so.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream, self._left = stream, MAX_READS
        self.fault: str | None = None
        self.name = stream.name
        self.tell: Callable[[], int] = stream.tell
        self.seek: Callable[..., int] = stream.seek

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes; EOFError if a limit is reached; `fault` is then the reason."""
        self._left -= 1
        if size < 0:
            self.fault = "expected pixel data that are at most compressed, got a deflated data set"
        elif self._left < 0:
            self.fault = f"the DICOM file has elements over the limit of {MAX_READS:,} reads"
        if self.fault is not None:
            raise EOFError(self.fault)
        return self._stream.read(size)


def read_attributes(file: Path, names: Sequence[str], *, before_pixels: bool = False) -> Dataset:
    """Return the attributes `names` of a DICOM file, optionally only those before its pixel data.

    Raises DataError if it has too many elements or is deflated, and whatever pydicom raises for a damaged one: call it
    in `silent_dicom`, and let no message quote what it raises.
    """
    from pydicom.filereader import read_partial
    from pydicom.tag import Tag

    with file.open("rb") as stream:
        unmarked = stream.read(2) in UNMARKED
        stream.seek(0)
        counted = CountedReads(stream)
        try:
            return read_partial(
                cast(BinaryIO, counted),
                stop_when=(lambda tag, *_: tag >= PIXELS) if before_pixels else None,
                specific_tags=[Tag(name) for name in names],
                force=unmarked,
            )
        finally:
            # pydicom accepts the end of a file as the end of its data, and wraps other errors.
            if counted.fault is not None:
                raise DataError(f"{file}: {counted.fault}") from None


def _dataset(file: Path) -> Dataset:
    """Return what of the data set a picture needs; its transfer syntax is guessed where the file has none."""
    from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    dataset = read_attributes(file, NEEDED)
    if not value_of(dataset.file_meta, "TransferSyntaxUID"):
        if "PixelData" in dataset and dataset["PixelData"].is_undefined_length:
            raise DataError(f"{file}: expected the attribute TransferSyntaxUID of a compressed picture, got none")
        implicit, little = dataset.original_encoding
        guessed = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else guessed
    return dataset


def _checked_syntax(dataset: Dataset, file: Path, max_pixels: int) -> UID:
    """Check what decoding needs to know, set what is missing and has a default, and return the transfer syntax."""
    from pydicom.pixels import get_decoder

    keyword = next((name for name in ("PixelData", *FLOAT_BITS) if name in dataset), None)
    if keyword is None:
        raise DataError(f"{file}: expected a picture, got a DICOM file without pixel data")
    if value_of(dataset, keyword) is None:
        raise DataError(f"{file}: expected a picture in the attribute {keyword}, got an empty one")
    for other in {"PixelData", *FLOAT_BITS} - {keyword}:
        # A file should have one of them; if it has several, only the first is used.
        dataset.pop(other, None)
    photometric = text_of(dataset, "PhotometricInterpretation")
    if photometric not in GREY + COLOUR:
        raise DataError(
            f"{file}: expected a photometric interpretation out of {', '.join(GREY + COLOUR)} in the attribute "
            "PhotometricInterpretation, got another"
        )
    frames = int(number_of(dataset, "NumberOfFrames") or 1)
    if frames != 1:
        raise DataError(f"{file}: expected one picture, got {frames} frames")
    place = str(file)
    samples = whole_number(dataset, "SamplesPerPixel", place, range(1, 5), default=1)
    needed = 1 if photometric in (*GREY, "PALETTE COLOR") else 3
    if samples != needed:
        words = "one value" if needed == 1 else "three values"
        raise DataError(f"{file}: expected {words} a pixel in {photometric}, got {samples}")
    bits = FLOAT_BITS.get(keyword) or whole_number(dataset, "BitsAllocated", place, (1, 8, 16, 32, 64))
    known = {
        "PhotometricInterpretation": photometric,
        "SamplesPerPixel": samples,
        "NumberOfFrames": 1,
        "BitsAllocated": bits,
        "BitsStored": bits if keyword in FLOAT_BITS else whole_number(dataset, "BitsStored", place, range(1, bits + 1)),
        "PixelRepresentation": whole_number(dataset, "PixelRepresentation", place, (0, 1), default=0),
        "PlanarConfiguration": whole_number(dataset, "PlanarConfiguration", place, (0, 1), default=0) if samples > 1 else 0,
        "Rows": whole_number(dataset, "Rows", place, range(1, 65536)),
        "Columns": whole_number(dataset, "Columns", place, range(1, 65536)),
    }
    for name, value in known.items():
        setattr(dataset, name, value)
    # Wide values are converted as float64 pixel by pixel, and colours by float32.
    limit = max_pixels if bits <= 16 and samples == 1 and photometric in GREY else max_pixels // 4
    if dataset.Rows * dataset.Columns > limit:
        raise DataError(f"{file}: {dataset.Columns} x {dataset.Rows} pixels are over the limit of {limit}")
    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax.is_compressed:
        if not get_decoder(syntax).is_available:
            raise DataError(f"{file}: no decoder for {get_decoder(syntax).UID.name} is installed; {INSTALL}")
        _check_codestream(dataset, syntax, file)
    else:
        _check_length(dataset, keyword, file)
    return syntax


def _check_length(dataset: Dataset, keyword: str, file: Path) -> None:
    """Raise DataError if there are fewer uncompressed values than in the tags."""
    values = dataset.Rows * dataset.Columns * dataset.SamplesPerPixel
    if dataset.PhotometricInterpretation == "YBR_FULL_422":
        values = values * 2 // 3
    needed, got = (values * dataset.BitsAllocated + 7) // 8, len(value_of(dataset, keyword))
    if got < needed:
        raise DataError(f"{file}: expected {needed:,} bytes in the attribute {keyword}, as in the tags, got {got:,}")


def _check_codestream(dataset: Dataset, syntax: UID, file: Path) -> None:
    """Compare the size in the compressed image with that of the tags: a decoder allocates the former."""
    from pydicom.encaps import get_frame
    from pydicom.uid import JPEG2000TransferSyntaxes, RLELossless

    _check_fragments(dataset.PixelData, file)
    frame = get_frame(dataset.PixelData, 0, number_of_frames=1)
    if syntax == RLELossless:
        # The tags determine the decoded size, and RLE data are at most slightly longer.
        most = 2 * dataset.Rows * dataset.Columns * dataset.SamplesPerPixel * max(dataset.BitsAllocated // 8, 1) + 1024
        if len(frame) > most:
            raise DataError(f"{file}: expected a compressed picture of at most {most:,} bytes, got {len(frame):,}")
        return
    if syntax in JPEG2000TransferSyntaxes or "2000" in syntax.name:
        single = jpeg2000_frame(frame, str(file))
        found = [] if single is None else [single]
    else:
        found = jpeg_frames(frame, str(file))
    if not found:
        raise DataError(f"{file}: the compressed picture is damaged or cut off: it has no size")
    expected = (dataset.Columns, dataset.Rows, dataset.SamplesPerPixel)
    for each in found:
        if (each.width, each.height, each.samples) != expected:
            raise DataError(
                f"{file}: expected a compressed picture of {expected[0]} x {expected[1]} pixels and {expected[2]} value(s) a "
                f"pixel, as in the tags, got {each.width} x {each.height} and {each.samples}"
            )


def _check_fragments(data: bytes, file: Path) -> None:
    position = count = 0
    while len(head := data[position : position + 8]) == 8:
        length = int.from_bytes(head[4:], "little")
        if count == 0 and length > MAX_OFFSETS:
            raise DataError(f"{file}: expected the offset table of one picture, got one of {length:,} bytes")
        count += 1
        if count > MAX_FRAGMENTS:
            raise DataError(f"{file}: the compressed picture has over the limit of {MAX_FRAGMENTS:,} fragments")
        position += 8 + length


def _picture(dataset: Dataset, file: Path, syntax: UID) -> Image.Image:
    from pydicom.pixels import apply_color_lut, get_decoder

    decoder: Any = get_decoder(syntax)
    values, _ = decoder.as_array(dataset, index=0, correct_unused_bits=False)
    if dataset.PhotometricInterpretation not in GREY:
        if dataset.PhotometricInterpretation == "PALETTE COLOR":
            values = apply_color_lut(values, dataset)
        return _luma(values, dataset.BitsStored)
    if values.dtype.kind in "iu" and values.dtype.itemsize <= 2:
        return _by_levels(dataset, values)
    return Image.fromarray(_shown(dataset, values))


def _shown(dataset: Dataset, values: np.ndarray) -> np.ndarray:
    stored = _stored(values, dataset.BitsStored)
    padding = is_padding(dataset, values) | is_padding(dataset, stored)
    return shown(dataset, stored, padding, stored=dataset.BitsStored)


def _stored(values: np.ndarray, bits: int) -> np.ndarray:
    """Return integers with their sign, and without the contents of their unused bits, such as overlays."""
    shift = 8 * values.dtype.itemsize - bits
    return values if values.dtype.kind == "f" or shift <= 0 else (values << shift) >> shift


def _by_levels(dataset: Dataset, values: np.ndarray) -> Image.Image:
    """Convert each of the 65,536 possible values that occurs once, then look every pixel up, a strip at a time."""
    unsigned = values.view(f"u{values.dtype.itemsize}")
    occurs = np.zeros(1 << 16, dtype=bool)
    for row in range(0, len(values), STRIP):
        occurs[unsigned[row : row + STRIP]] = True
    patterns = np.flatnonzero(occurs)
    table = np.zeros(1 << 16, dtype=np.uint8)
    table[patterns] = _shown(dataset, patterns.astype(unsigned.dtype).view(values.dtype))
    grey = np.empty(values.shape, dtype=np.uint8)
    for row in range(0, len(values), STRIP):
        grey[row : row + STRIP] = table[unsigned[row : row + STRIP]]
    return Image.fromarray(grey)


def _luma(values: np.ndarray, stored: int) -> Image.Image:
    """Return colours (H, W, 3) as luma; 16-bit ones may have 12 bits, by their tag or by their greatest value."""
    if values.dtype.itemsize == 1:
        return Image.fromarray(values).convert("L")
    depth = min(max(stored, 8), 16) if stored < 16 else 16
    depth = min(depth, depth_of(int(values.max()))) if depth == 16 else max(depth, depth_of(int(values.max())))
    return Image.fromarray((values >> (depth - 8)).astype(np.uint8)).convert("L")

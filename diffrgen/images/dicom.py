"""A radiograph read from a DICOM file as an 8-bit grey image, as the viewing station would show it.

Of its tags nothing is kept, and no message quotes one: any of them may hold the patient's name.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from diffrgen.errors import DataError
from diffrgen.images.silence import silent_dicom

if TYPE_CHECKING:
    from pydicom import Dataset

INSTALL = 'DICOM needs pydicom and its decoders: pip install "diffrgen[dicom]"'
# The bytes that tell whether a file has the mark of a DICOM file: its preamble, then the mark.
START = 132
# Its data set is compressed as a whole, so that a small file may claim any amount of memory.
DEFLATED = "1.2.840.10008.1.2.1.99"
GREY, COLOUR = (
    ("MONOCHROME1", "MONOCHROME2"),
    ("PALETTE COLOR", "RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT"),
)


def has_dicom_mark(start: bytes) -> bool:
    """Return whether `start`, the first START bytes of a file or more, holds the mark behind the preamble."""
    return start[128:START] == b"DICM"


def read_dicom(file: Path, *, max_pixels: int) -> Image.Image:
    """Return the picture of the DICOM file `file` as mode "L".

    stored values -> modality LUT or rescale -> VOI LUT or window (the first one) -> 0..255, dark to bright. Without
    a VOI LUT or window the least value becomes 0 and the greatest 255. MONOCHROME1 is inverted. Colour becomes luma.

    Raises:
        DataError: pydicom or a decoder is missing, no picture or several frames, over `max_pixels`, or damaged.
    """
    try:
        import pydicom
    except ImportError as error:
        raise DataError(f"{file}: {INSTALL}") from error
    try:
        with silent_dicom():
            if pydicom.filereader.read_file_meta_info(file).get("TransferSyntaxUID") == DEFLATED:
                raise DataError(f"{file}: expected pixel data that are at most compressed, got a deflated data set")
            dataset = pydicom.dcmread(file)
            _check(dataset, file, max_pixels)
            return _picture(dataset)
    except DataError:
        raise
    except Exception as error:  # pydicom and its decoders raise nearly every built-in exception on damaged files
        kind = type(error).__name__
    # Outside the handler: the error is not chained, so that no traceback shows what it quotes.
    raise DataError(
        f"{file}: the DICOM file is damaged or cannot be shown ({kind}; the details are left out, as they may quote the "
        "patient's tags)"
    )


def _check(dataset: Dataset, file: Path, max_pixels: int) -> None:
    from pydicom.pixels import get_decoder

    if "PixelData" not in dataset:
        raise DataError(f"{file}: expected a picture, got a DICOM file without pixel data")
    if dataset.PhotometricInterpretation not in GREY + COLOUR:
        raise DataError(f"{file}: expected a photometric interpretation out of {', '.join(GREY + COLOUR)}, got another")
    frames = int(dataset.get("NumberOfFrames", 1) or 1)
    if frames != 1:
        raise DataError(f"{file}: expected one picture, got {frames} frames")
    samples = int(dataset.get("SamplesPerPixel", 1))
    if dataset.PhotometricInterpretation in GREY and samples != 1:
        raise DataError(f"{file}: expected one value a pixel in {dataset.PhotometricInterpretation}, got {samples}")
    # Values wider than 16 bits are converted as float64, pixel by pixel.
    limit = max_pixels if dataset.BitsAllocated <= 16 else max_pixels // 4
    columns, rows = int(dataset.Columns), int(dataset.Rows)
    if rows * columns > limit:
        raise DataError(f"{file}: {columns} x {rows} pixels are over the limit of {limit}")
    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax.is_compressed and not get_decoder(syntax).is_available:
        raise DataError(f"{file}: no decoder for {get_decoder(syntax).UID.name} is installed; {INSTALL}")


def _picture(dataset: Dataset) -> Image.Image:
    from pydicom.pixels import apply_color_lut

    values = dataset.pixel_array
    if dataset.PhotometricInterpretation == "PALETTE COLOR":
        values = apply_color_lut(values, dataset)
    if dataset.PhotometricInterpretation not in GREY:
        depth = 8 * values.dtype.itemsize
        return Image.fromarray((values >> (depth - 8)).astype(np.uint8)).convert("L")
    if values.dtype.itemsize > 2:
        return Image.fromarray(_shown(dataset, values))
    # Each value that occurs is converted once. Negative ones wrap round, in the table and out of it.
    levels = np.unique(values)
    table = np.zeros(1 << 16, dtype=np.uint8)
    table[levels.astype(np.uint16)] = _shown(dataset, levels[None])[0]
    return Image.fromarray(table[values.astype(np.uint16)])


def _shown(dataset: Dataset, values: np.ndarray) -> np.ndarray:
    """Return stored values (H, W) as the station shows them, uint8."""
    from pydicom.pixels import apply_modality_lut, apply_voi_lut

    values = apply_voi_lut(apply_modality_lut(values, dataset), dataset).astype(np.float64)
    low, high = _shown_range(dataset, values)
    share = np.clip((values - low) / (high - low), 0.0, 1.0) if high > low else np.zeros_like(values)
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        share = 1.0 - share
    return np.round(255.0 * share).astype(np.uint8)


def _shown_range(dataset: Dataset, values: np.ndarray) -> tuple[float, float]:
    """The values shown as black and as white: the ends that a VOI LUT or window maps to, else the extremes."""
    if dataset.get("VOILUTSequence"):
        return 0.0, 2.0 ** dataset.VOILUTSequence[0].LUTDescriptor[2] - 1
    if dataset.get("WindowCenter") is None or "ModalityLUTSequence" in dataset:
        return float(values.min()), float(values.max())
    half = 2.0 ** (dataset.BitsStored - 1)
    ends = np.array([-half, half - 1] if dataset.PixelRepresentation else [0.0, 2 * half - 1])
    ends = ends * float(dataset.get("RescaleSlope", 1)) + float(dataset.get("RescaleIntercept", 0))
    return float(ends.min()), float(ends.max())

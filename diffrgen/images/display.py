"""Stored values of a DICOM file as a viewing station shows them (DICOM PS3.3 C.11.1, C.11.2, C.7.6.3.1.2).

    stored values -> modality LUT, or slope * v + intercept -> VOI LUT, or window -> inverted or not -> 0..255

Attributes that are empty or odd are taken as absent. Bright stands for large values once they are rescaled, whatever the
sign of the slope; MONOCHROME1 and the presentation LUT shape INVERSE turn that round, once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from diffrgen.images.attributes import items_of, number_of, numbers_of, text_of, value_of
from diffrgen.images.depth import depth_of

if TYPE_CHECKING:
    from pydicom import Dataset


@dataclass(frozen=True)
class Table:
    """A lookup table: `values[0]` for `first` and what is less; `top`: the value that is shown as white."""

    values: np.ndarray
    first: int
    top: int

    def __call__(self, inputs: np.ndarray) -> np.ndarray:
        """Return the entries for `inputs`, clipped to the table's ends."""
        places = np.clip(np.round(inputs) - self.first, 0, len(self.values) - 1)
        return self.values[places.astype(np.int64)].astype(np.float64)


@dataclass(frozen=True)
class Window:
    """The values from black to white: `centre` and `width`, by the function LINEAR, LINEAR_EXACT or SIGMOID."""

    centre: float
    width: float
    function: str

    def __call__(self, inputs: np.ndarray) -> np.ndarray:
        """Return 0..1 by the equations of PS3.3 C.11.2.1.2 and C.11.2.1.3."""
        if self.function == "SIGMOID":
            return 1 / (1 + np.exp(np.clip(-4 * (inputs - self.centre) / self.width, -700, 700)))
        if self.function == "LINEAR_EXACT":
            return np.clip((inputs - self.centre) / self.width + 0.5, 0.0, 1.0)
        if self.width == 1:
            return np.where(inputs <= self.centre - 0.5, 0.0, 1.0)
        return np.clip((inputs - (self.centre - 0.5)) / (self.width - 1) + 0.5, 0.0, 1.0)


def is_padding(dataset: Dataset, values: np.ndarray) -> np.ndarray:
    """Return where stored `values` are padding, which is shown black and does not count for the contrast."""
    kind = "" if values.dtype.kind in "iu" else "Float" if values.dtype.itemsize == 4 else "DoubleFloat"
    value = number_of(dataset, f"{kind}PixelPaddingValue")
    if value is None:
        return np.zeros(values.shape, dtype=bool)
    limit = number_of(dataset, f"{kind}PixelPaddingRangeLimit")
    ends = np.array([value, value if limit is None else limit])
    # Through integers, so that the bounds wrap around: the attribute's sign may differ from that of the pixels.
    ends = (ends if kind else ends.astype(np.int64)).astype(values.dtype)
    return (values >= ends.min()) & (values <= ends.max())


def shown(dataset: Dataset, values: np.ndarray, padding: np.ndarray, *, stored: int) -> np.ndarray:
    """Return stored `values` of any shape as uint8, of which `padding` (bool) becomes black.

    stored: bits of a value. Without a VOI LUT or window the least value becomes 0 and the greatest 255. Padding that leaves
    nothing over is none.
    """
    padding = padding & (not padding.all())
    counted = ~padding & np.isfinite(values)
    inputs = _rescaled(dataset, np.where(counted, values, 0), stored)
    signed = bool((inputs[counted] < 0).any())
    table = _first_table(dataset, "VOILUTSequence", stored, signed=signed)
    window = None if table is not None else _window(dataset)
    if table is not None:
        share = np.clip(table(inputs) / table.top, 0.0, 1.0)
    elif window is not None:
        share = window(inputs)
    else:
        share = _stretched(inputs, counted)
    inverse = text_of(dataset, "PresentationLUTShape") == "INVERSE"
    if inverse or text_of(dataset, "PhotometricInterpretation") == "MONOCHROME1":
        share = 1.0 - share
    return np.where(counted, np.round(255.0 * share), 0).astype(np.uint8)


def _rescaled(dataset: Dataset, values: np.ndarray, stored: int) -> np.ndarray:
    signed = number_of(dataset, "PixelRepresentation") == 1
    table = _first_table(dataset, "ModalityLUTSequence", stored, signed=signed)
    if table is not None:
        return table(values)
    slope, intercept = number_of(dataset, "RescaleSlope"), number_of(dataset, "RescaleIntercept")
    plain = values.astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        rescaled = plain * (slope or 1.0) + (intercept or 0.0)
    # A slope or intercept that overflows is ignored, too.
    return rescaled if np.isfinite(rescaled).all() else plain


def _stretched(inputs: np.ndarray, counted: np.ndarray) -> np.ndarray:
    if not counted.any():
        return np.zeros_like(inputs)
    low, high = float(inputs[counted].min()), float(inputs[counted].max())
    # Halves, because the difference of two float64 may be infinite.
    return np.clip((inputs / 2 - low / 2) / (high / 2 - low / 2), 0.0, 1.0) if high > low else np.zeros_like(inputs)


def _window(dataset: Dataset) -> Window | None:
    """The first window whose centre and width are numbers and whose width is one that its function has."""
    function = text_of(dataset, "VOILUTFunction")
    # LINEAR is what an absent attribute means; its window is at least one value wide.
    least = 0.0 if function in ("LINEAR_EXACT", "SIGMOID") else 1.0
    for centre, width in zip(numbers_of(dataset, "WindowCenter"), numbers_of(dataset, "WindowWidth"), strict=False):
        if not math.isnan(centre) and width >= least and width > 0:
            return Window(centre, width, function)
    return None


def _first_table(dataset: Dataset, name: str, stored: int, *, signed: bool) -> Table | None:
    """The first item of the sequence `name` that is a lookup table; signed: of values that may be negative."""
    tables = (_table(item, stored, signed, dataset) for item in items_of(dataset, name))
    return next((table for table in tables if table is not None), None)


def _table(item: Dataset, stored: int, signed: bool, dataset: Dataset) -> Table | None:
    descriptor = numbers_of(item, "LUTDescriptor")
    if len(descriptor) != 3 or any(map(math.isnan, descriptor)):
        return None
    count, first, bits = map(int, descriptor)
    count = (count & 0xFFFF) or 1 << 16
    first = first - (1 << 16) if signed and first > 32767 else first
    values = _entries(value_of(item, "LUTData"), count, bits, little=dataset.original_encoding[1] is not False)
    if values is None or not values.any():
        return None
    most = int(values.max())
    if not 1 <= bits < 16:
        # A table of 12-bit values is often called one of 16, which would be shown nearly black; 0 and 99 are ignored.
        bits = max(depth_of(most), min(stored, 16) if stored < 16 else 0)
    return Table(values, first, max(most, (1 << bits) - 1))


def _entries(data: object, count: int, bits: int, *, little: bool) -> np.ndarray | None:
    """The entries (count,) of a table's data: words, or bytes where there are no more."""
    if isinstance(data, bytes):
        if bits <= 8 and len(data) in (count, count + 1):
            return np.frombuffer(data, np.uint8)[:count]
        values = np.frombuffer(data[: len(data) // 2 * 2], "<u2" if little else ">u2")
    else:
        try:
            values = np.atleast_1d(np.asarray(data, dtype=np.int64)).astype(np.uint16)
        except (TypeError, ValueError, OverflowError):
            return None
        if bits <= 8 and values.ndim == 1 and len(values) in (count // 2, -(-count // 2)) and len(values) < count:
            values = values.astype("<u2" if little else ">u2").view(np.uint8)
    return values[:count] if values.ndim == 1 and len(values) >= count else None

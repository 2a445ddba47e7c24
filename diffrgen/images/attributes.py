"""DICOM attributes as files have them: empty, of another kind or not to be parsed; then they are taken as absent.

No value reaches a message: it may name a patient. An attribute's own name may.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from diffrgen.errors import DataError

if TYPE_CHECKING:
    from pydicom import Dataset

# Attributes that are required before pixels are decoded, and those of the display.
NEEDED = (
    *("SpecificCharacterSet", "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "NumberOfFrames"),
    *("Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"),
    *("PixelPaddingValue", "PixelPaddingRangeLimit", "FloatPixelPaddingValue", "DoubleFloatPixelPaddingValue"),
    *("FloatPixelPaddingRangeLimit", "DoubleFloatPixelPaddingRangeLimit"),
    *("RescaleIntercept", "RescaleSlope", "ModalityLUTSequence", "LUTDescriptor", "LUTData"),
    *("WindowCenter", "WindowWidth", "VOILUTFunction", "VOILUTSequence", "PresentationLUTShape"),
    *(
        f"{colour}PaletteColorLookupTable{part}"
        for colour in ("Red", "Green", "Blue")
        for part in ("Data", "Descriptor")
    ),
    *(f"Segmented{colour}PaletteColorLookupTableData" for colour in ("Red", "Green", "Blue")),
    *("PixelData", "FloatPixelData", "DoubleFloatPixelData"),
)
# A table of 65,536 values of 16 bits has 131,072 bytes, and a sequence a few of them.
LONGEST_SEQUENCE = 2_000_000


def value_of(dataset: Dataset, name: str) -> Any:
    """Return the value of the attribute `name`; None if it is absent, empty or cannot be parsed."""
    try:
        value = dataset.get(name)
    except Exception:  # pydicom parses when asked, and raises nearly every built-in exception
        return None
    return None if value is None or value == "" else value


def numbers_of(dataset: Dataset, name: str) -> list[float]:
    """Return the numbers of `name`, NaN for each value that is none or is not finite; [] where it is absent."""
    value = value_of(dataset, name)
    values = value if isinstance(value, Sequence) and not isinstance(value, str | bytes) else [value]
    return [] if value is None else [_number(each) for each in values]


def number_of(dataset: Dataset, name: str) -> float | None:
    """Return the first number of `name`; None if it has none."""
    return next((number for number in numbers_of(dataset, name)[:1] if not math.isnan(number)), None)


def text_of(dataset: Dataset, name: str) -> str:
    """Return the first text of `name` in capitals, without blanks round it; "" if it is absent."""
    value = value_of(dataset, name)
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        value = value[0] if value else ""
    return value.strip().upper() if isinstance(value, str) else ""


def items_of(dataset: Dataset, name: str) -> list[Dataset]:
    """Return the items of the sequence `name`; [] where it is absent, no sequence, or longer than any table."""
    try:
        element = dataset.get_item(name)
        raw = getattr(element, "value", None)
    except Exception:
        return []
    if isinstance(raw, bytes) and len(raw) > LONGEST_SEQUENCE:
        return []
    value = value_of(dataset, name)
    return [item for item in value if hasattr(item, "get_item")] if isinstance(value, Sequence) else []


def whole_number(
    dataset: Dataset, name: str, place: str, allowed: range | tuple[int, ...], *, default: int | None = None
) -> int:
    """Return `name` as an integer out of `allowed`; `default` where it is absent.

    Raises:
        DataError: it is another number or none, or absent without a default; the message has the attribute's name.
    """
    value = number_of(dataset, name)
    if value is None and default is not None:
        return default
    if value is None or int(value) != value or int(value) not in allowed:
        words = (
            f"{allowed[0]}..{allowed[-1]}" if isinstance(allowed, range) else f"out of {', '.join(map(str, allowed))}"
        )
        got = "an empty or missing one" if value is None else "another number"
        raise DataError(f"{place}: expected a value {words} in the attribute {name}, got {got}")
    return int(value)


def _number(value: object) -> float:
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return math.nan
    return number if math.isfinite(number) else math.nan

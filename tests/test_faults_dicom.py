"""DICOM files with empty and odd attributes, padding, every polarity, tables and depths, and hostile compressed pictures.

Expected values are computed here by the equations of DICOM PS3.3 C.11.1 and C.11.2, with NumPy.
"""

from __future__ import annotations

import io
import struct
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from diffrgen.errors import DataError
from diffrgen.images import probe_grey, read_grey

pydicom = pytest.importorskip("pydicom", reason="DICOM needs the extra diffrgen[dicom]")
from dicom_files import PATIENT, lookup_table, without_head, without_syntax, write_compressed, write_dicom  # noqa: E402
from pydicom.uid import (  # noqa: E402
    DeflatedExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
)

FAULTS = Path(__file__).resolve().parents[2] / "shared" / "faults" / "dicom"
# All 4,096 values of 12 bits.
STORED = np.arange(4096, dtype=np.uint16).reshape(64, 64)


def pixels(path: Path) -> np.ndarray:
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        grey = np.asarray(read_grey(path))
    assert not any(PATIENT in str(warning.message) for warning in heard)
    return grey


def refusal(path: Path) -> str:
    messages = set()
    for read in (read_grey, probe_grey):
        with pytest.raises(DataError) as caught:
            read(path)
        messages.add(str(caught.value))
        assert caught.value.__cause__ is None
    assert len(messages) == 1
    message = messages.pop()
    assert message.startswith(str(path))
    assert "SECRET" not in message
    return message


def stretched(values: np.ndarray) -> np.ndarray:
    values = values.astype(float)
    return np.round(255 * (values - values.min()) / (values.max() - values.min()))


def windowed(values: np.ndarray, centre: float, width: float) -> np.ndarray:
    return np.round(255 * np.clip((values - (centre - 0.5)) / (width - 1) + 0.5, 0, 1))


EMPTY = b""
WINDOW = {"WindowCenter": "1000", "WindowWidth": "2001"}


@pytest.mark.parametrize(
    ("tags", "raw"),
    [
        ({}, {"RescaleSlope": ("DS", EMPTY), "RescaleIntercept": ("DS", EMPTY)}),
        ({}, {"RescaleSlope": ("DS", b"one "), "RescaleIntercept": ("DS", b"\\0\\0")}),
        ({}, {"RescaleSlope": ("DS", b"nan "), "RescaleIntercept": ("DS", b"inf ")}),
        ({"RescaleSlope": "0", "RescaleIntercept": "0"}, {}),
        ({}, {"RescaleSlope": ("DS", b"1e308 "), "RescaleIntercept": ("DS", b"1e308 ")}),
        ({"PixelPaddingValue": 0, "PixelPaddingRangeLimit": 65535}, {}),
        ({"FloatPixelData": bytes(4 * 4096)}, {}),
        ({}, {"PlanarConfiguration": ("US", b"\7\0")}),
        ({}, {"ModalityLUTSequence": ("SQ", EMPTY), "VOILUTSequence": ("SQ", EMPTY)}),
        ({}, {"VOILUTSequence": ("SQ", b"SECRET^N")}),
        ({}, {"VOILUTFunction": ("CS", EMPTY)}),
        ({"VOILUTFunction": "SQUARED"}, {}),
        ({"VOILUTFunction": "linear"}, {}),
        ({"PresentationLUTShape": "IDENTITY"}, {}),
        ({"PresentationLUTShape": "ROUND"}, {}),
        ({}, {"PixelPaddingValue": ("US", EMPTY)}),
        ({}, {"PixelPaddingValue": ("LO", PATIENT.encode() + b" ")}),
        ({}, {"NumberOfFrames": ("IS", EMPTY)}),
        ({"PixelRepresentation": None}, {}),
        ({"HighBit": None}, {}),
        ({"SamplesPerPixel": None}, {}),
        ({"PhotometricInterpretation": "Monochrome2"}, {}),
        ({}, {"PhotometricInterpretation": ("CS", b" MONOCHROME2")}),
    ],
)
@pytest.mark.parametrize("window", [WINDOW, {}])
def test_an_empty_or_odd_attribute_is_taken_as_absent(
    tmp_path: Path, tags: dict[str, Any], raw: dict[str, tuple[str, bytes]], window: dict[str, str]
) -> None:
    path = write_dicom(tmp_path / "a.dcm", STORED, raw=raw, **window, **tags)
    expected = windowed(STORED, 1000, 2001) if window else stretched(STORED)
    np.testing.assert_array_equal(pixels(path), expected)


@pytest.mark.parametrize("descriptor", [[], [4096], [0, 0, 0], [4096, 0, 16, 1]])
@pytest.mark.parametrize("name", ["VOILUTSequence", "ModalityLUTSequence"])
def test_a_table_that_is_none_is_passed_over(tmp_path: Path, name: str, descriptor: list[int]) -> None:
    table = lookup_table(0, np.zeros(16))
    table[0].add_new("LUTDescriptor", "US", descriptor)
    np.testing.assert_array_equal(
        pixels(write_dicom(tmp_path / "a.dcm", STORED, **{name: table}, **WINDOW)), windowed(STORED, 1000, 2001)
    )
    del table[0].LUTData
    np.testing.assert_array_equal(pixels(write_dicom(tmp_path / "b.dcm", STORED, **{name: table})), stretched(STORED))


@pytest.mark.parametrize("width", ["0", "-5", "0.5", "wide"])
def test_a_window_without_width_is_passed_over(tmp_path: Path, width: str) -> None:
    raw = {"WindowWidth": ("DS", width.encode().ljust(4))}
    path = write_dicom(tmp_path / "a.dcm", STORED, raw=raw, WindowCenter="1000")
    np.testing.assert_array_equal(pixels(path), stretched(STORED))
    raw = {"WindowWidth": ("DS", f"{width}\\2001".encode().ljust(10)), "WindowCenter": ("DS", b"9\\1000")}
    np.testing.assert_array_equal(
        pixels(write_dicom(tmp_path / "b.dcm", STORED, raw=raw)), windowed(STORED, 1000, 2001)
    )


def test_the_functions_of_a_window(tmp_path: Path) -> None:
    """PS3.3 C.11.2.1.3: sigmoid 1 / (1 + exp(-4 (x - c) / w)); linear exact (x - c) / w + 1/2, clipped."""
    sigmoid = write_dicom(tmp_path / "a.dcm", STORED, VOILUTFunction="SIGMOID", **WINDOW)
    np.testing.assert_array_equal(pixels(sigmoid), np.round(255 / (1 + np.exp(-4 * (STORED - 1000.0) / 2001))))
    exact = write_dicom(tmp_path / "b.dcm", STORED, VOILUTFunction="LINEAR_EXACT", **WINDOW)
    np.testing.assert_array_equal(pixels(exact), np.round(255 * np.clip((STORED - 1000.0) / 2001 + 0.5, 0, 1)))
    step = write_dicom(tmp_path / "c.dcm", STORED, WindowCenter="1000", WindowWidth="1")
    np.testing.assert_array_equal(pixels(step), np.where(STORED <= 999, 0, 255))


@pytest.mark.parametrize("window", [{}, {"WindowCenter": "2048", "WindowWidth": "4096"}])
@pytest.mark.parametrize("slope", [1, -1])
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("shape", [None, "IDENTITY", "INVERSE"])
def test_polarity(tmp_path: Path, window: dict[str, str], slope: int, photometric: str, shape: str | None) -> None:
    """What is large once rescaled is bright; MONOCHROME1 or INVERSE, which go together, make it dark."""
    tags = dict(window, RescaleSlope=str(slope), RescaleIntercept=str(0 if slope == 1 else 4095))
    if shape is not None:
        tags["PresentationLUTShape"] = shape
    path = write_dicom(tmp_path / "a.dcm", STORED, PhotometricInterpretation=photometric, **tags)
    rising = (slope == 1) != (photometric == "MONOCHROME1" or shape == "INVERSE")
    expected = np.round(STORED * (255 / 4095))
    assert np.abs(pixels(path) - (expected if rising else 255 - expected)).max() <= 1


@pytest.mark.parametrize("window", [False, True])
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize(
    ("dtype", "value", "limit"),
    [("int16", -2000, None), ("int16", -3000, -2000), ("uint16", 65535, None), ("uint16", 0, None)],
)
def test_padding_is_black_and_does_not_count(
    tmp_path: Path, window: bool, photometric: str, dtype: str, value: int, limit: int | None
) -> None:
    inside = np.linspace(1000, 1200, 40 * 40).astype(dtype).reshape(40, 40)
    values = np.full((64, 64), value, dtype)
    values[12:52, 12:52] = inside
    if limit is not None:
        values[:3] = limit
    tags: dict[str, Any] = {"PixelPaddingValue": value} | ({} if limit is None else {"PixelPaddingRangeLimit": limit})
    if window:
        tags |= {"WindowCenter": "1100", "WindowWidth": "201"}
    picture = pixels(write_dicom(tmp_path / "a.dcm", values, bits=16, PhotometricInterpretation=photometric, **tags))
    shown = windowed(inside.astype(float), 1100, 201) if window else stretched(inside)
    expected = np.zeros((64, 64))
    expected[12:52, 12:52] = shown if photometric == "MONOCHROME2" else 255 - shown
    assert np.abs(picture - expected).max() <= 1
    assert (picture[:12] == 0).all()


def test_padding_of_the_other_sign_is_found(tmp_path: Path) -> None:
    values = np.full((8, 8), -2000, np.int16)
    values[2:6, 2:6] = np.arange(16).reshape(4, 4) * 10
    raw = {"PixelPaddingValue": ("US", struct.pack("<H", 65536 - 2000))}
    picture = pixels(write_dicom(tmp_path / "a.dcm", values, bits=16, raw=raw))
    np.testing.assert_array_equal(picture[2:6, 2:6], stretched(values[2:6, 2:6]))
    everywhere = write_dicom(tmp_path / "b.dcm", np.full((4, 4), 7, np.uint16), PixelPaddingValue=7)
    assert not pixels(everywhere).any()


@pytest.mark.parametrize(
    ("bits", "most"), [(12, 4095), (16, 65535), (16, 4095), (8, 255), (10, 1023), (99, 4095), (0, 4095)]
)
def test_a_voi_table_of_any_depth(tmp_path: Path, bits: int, most: int) -> None:
    """A table of 12-bit values that is called one of 16 bits is not shown nearly black."""
    curve = np.round(most * (np.arange(4096) / 4095) ** 2)
    path = write_dicom(tmp_path / "a.dcm", STORED, VOILUTSequence=lookup_table(0, curve, bits=bits), **WINDOW)
    np.testing.assert_array_equal(pixels(path), np.round(255 * curve[STORED] / most))


def test_a_table_is_clipped_at_its_ends_and_may_begin_below_zero(tmp_path: Path) -> None:
    values = np.array([[-1100, -1000, -999, -996, 0]], np.int16)
    table = lookup_table(65536 - 1000, np.arange(5) * 1000, bits=12)
    path = write_dicom(tmp_path / "a.dcm", values, bits=16, VOILUTSequence=table)
    np.testing.assert_array_equal(
        pixels(path), np.round([[0, 0, 255 * 1000 / 4095, 255 * 4000 / 4095, 255 * 4000 / 4095]])
    )


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_a_modality_table_of_any_depth_comes_before_the_window(tmp_path: Path, bits: int) -> None:
    table = lookup_table(0, np.arange(4096)[::-1] >> (12 - min(bits, 12)), bits=bits)
    inputs = (4095 - STORED) >> (12 - min(bits, 12))
    path = write_dicom(tmp_path / "a.dcm", STORED, ModalityLUTSequence=table, WindowCenter="100", WindowWidth="101")
    np.testing.assert_array_equal(pixels(path), windowed(inputs.astype(float), 100, 101))


@pytest.mark.parametrize("bits", [12, 16])
def test_colours_of_12_bits_in_16_are_not_shown_nearly_black(tmp_path: Path, bits: int) -> None:
    colours = np.repeat(STORED[..., None], 3, axis=2)
    picture = pixels(write_dicom(tmp_path / "a.dcm", colours, bits=bits))
    np.testing.assert_array_equal(picture, STORED >> 4)
    assert pixels(write_dicom(tmp_path / "b.dcm", colours * 16, bits=16)).max() == 255


@pytest.mark.parametrize(("name", "dtype"), [("FloatPixelData", "<f4"), ("DoubleFloatPixelData", "<f8")])
def test_float_pixels_are_stretched_and_what_is_no_number_is_black(tmp_path: Path, name: str, dtype: str) -> None:
    values = np.linspace(-1, 3, 64 * 64).reshape(64, 64).astype(dtype)
    expected = stretched(values)
    values[0, :3] = np.nan, np.inf, -np.inf
    expected[0, :3] = 0
    tags = {name: values.tobytes(), "PixelData": None, "BitsStored": None, "HighBit": None, "PixelRepresentation": None}
    path = write_dicom(tmp_path / "a.dcm", values.view(f"<u{values.itemsize}"), bits=32, **tags)
    picture = pixels(path)
    assert np.abs(picture - np.round(255 * np.clip((np.nan_to_num(values, posinf=0) + 1) / 4, 0, 1)))[1:].max() <= 1
    np.testing.assert_array_equal(picture[0, :3], 0)


def test_without_a_transfer_syntax_or_a_preamble(tmp_path: Path) -> None:
    for change in (without_syntax, without_head):
        path = change(write_dicom(tmp_path / "a.dcm", STORED))
        np.testing.assert_array_equal(pixels(path), stretched(STORED))
    path = without_syntax(write_compressed(tmp_path / "b.dcm", jpeg(), JPEGBaseline8Bit))
    assert "expected the attribute TransferSyntaxUID of a compressed picture, got none" in refusal(path)


@pytest.mark.parametrize(
    ("tags", "raw", "name"),
    [
        ({"Rows": None}, {}, "Rows"),
        ({}, {"Columns": ("US", EMPTY)}, "Columns"),
        ({"BitsAllocated": 12}, {}, "BitsAllocated"),
        ({"BitsStored": None}, {}, "BitsStored"),
        ({"BitsStored": 17}, {}, "BitsStored"),
        ({"PixelRepresentation": 2}, {}, "PixelRepresentation"),
        ({"PhotometricInterpretation": PATIENT}, {}, "PhotometricInterpretation"),
        ({"PhotometricInterpretation": None}, {}, "PhotometricInterpretation"),
        ({}, {"Rows": ("LO", PATIENT.encode() + b" ")}, "Rows"),
        ({}, {"PixelData": ("OW", EMPTY)}, "PixelData, got an empty one"),
        ({}, {"PixelData": ("OW", bytes(100))}, "PixelData, as in the tags, got 100"),
    ],
)
def test_what_nothing_can_be_shown_without_is_said_by_its_name(
    tmp_path: Path, tags: dict[str, Any], raw: dict[str, tuple[str, bytes]], name: str
) -> None:
    message = refusal(write_dicom(tmp_path / "a.dcm", STORED, raw=raw, **tags))
    assert f"attribute {name}" in message


def jpeg(width: int = 64, height: int = 64, **options: Any) -> bytes:
    stream = io.BytesIO()
    ramp = np.add.outer(np.arange(height), np.arange(width)) % 256
    Image.fromarray(ramp.astype(np.uint8)).save(stream, "JPEG", **options)
    return stream.getvalue()


def jpeg2000(width: int = 64, height: int = 64) -> bytes:
    stream = io.BytesIO()
    Image.new("L", (width, height), 9).save(stream, "JPEG2000", no_jp2=True, irreversible=False)
    return stream.getvalue()


def with_size(stream: bytes, width: int, height: int) -> bytes:
    """A JPEG, JPEG-LS or JPEG 2000 codestream that says another size."""
    changed = bytearray(stream)
    if stream.startswith(b"\xff\x4f\xff\x51"):
        struct.pack_into(">IIIIII", changed, 8, width, height, 0, 0, width, height)
        return bytes(changed)
    at = next(stream.find(mark) for mark in (b"\xff\xc0", b"\xff\xc2", b"\xff\xf7") if mark in stream)
    struct.pack_into(">HH", changed, at + 5, height, width)
    return bytes(changed)


def with_precincts(stream: bytes, size: int) -> bytes:
    """A JPEG 2000 codestream whose precincts of each level have 2^(low half of `size`) by 2^(high half) coefficients."""
    at = stream.find(b"\xff\x52")
    levels = stream[at + 9]
    head = struct.pack(">H", 12 + levels + 1) + bytes([stream[at + 4] | 1]) + stream[at + 5 : at + 14]
    return stream[: at + 2] + head + bytes([size]) * (levels + 1) + stream[at + 14 :]


# A JPEG-LS codestream of 64 x 64 pixels: its head alone is looked at.
JPEG_LS = (
    b"\xff\xd8\xff\xf7" + struct.pack(">HBHHB3B", 11, 8, 64, 64, 1, 1, 17, 0) + b"\xff\xda\0\x08\1\1\0\0\0\0" + bytes(9)
)


@pytest.mark.parametrize("size", [(65535, 65535), (65535, 64), (65, 64), (32, 32)])
@pytest.mark.parametrize(
    ("syntax", "stream"),
    [(JPEGBaseline8Bit, jpeg()), (JPEG2000Lossless, jpeg2000()), (JPEGLSLossless, JPEG_LS)],
    ids=["jpeg", "jpeg2000", "jpeg-ls"],
)
def test_a_compressed_picture_of_another_size_than_the_tags_reaches_no_decoder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, syntax: Any, stream: bytes, size: tuple[int, int]
) -> None:
    if syntax != JPEGLSLossless:
        assert pixels(write_compressed(tmp_path / "good.dcm", stream, syntax)).shape == (64, 64)
    path = write_compressed(tmp_path / "a.dcm", with_size(stream, *size), syntax)
    monkeypatch.setattr("pydicom.pixels.decoders.base.Decoder.as_array", None)
    message = refusal(path)
    assert f"as in the tags, got {size[0]} x {size[1]} and 1" in message or "scans or more, over the limit" in message


def test_compressed_pictures_over_the_limits_reach_no_decoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    progressive = jpeg(progressive=True)
    last = progressive.rfind(b"\xff\xda")
    scans = progressive[:last] + progressive[last:-2] * 200 + b"\xff\xd9"
    tiles = bytearray(with_size(jpeg2000(), 128, 128))
    struct.pack_into(">II", tiles, 24, 1, 1)
    # Precincts of 1 x 1 in a picture of 4,096 x 4,096, or of 64 x 64 with 65,535 layers.
    precincts, layers = (with_precincts(with_size(jpeg2000(), 4096, 4096), size) for size in (0x00, 0x66))
    at = layers.find(b"\xff\x52") + 6
    layers = layers[:at] + b"\xff\xff" + layers[at + 2 :]
    wide = {"rows": 4096, "columns": 4096}
    monkeypatch.setattr("pydicom.pixels.decoders.base.Decoder.as_array", None)
    cases = {
        "scans": (scans, JPEGBaseline8Bit, {}, "the JPEG has 101 scans or more"),
        "tiles": (bytes(tiles), JPEG2000Lossless, {"rows": 128, "columns": 128}, "has 16,384 tiles, over the limit"),
        "layers": (layers, JPEG2000Lossless, wide, "blocks or packets"),
        "precincts": (precincts, JPEG2000Lossless, wide, "blocks or packets"),
        "no size": (b"\xff\xd8\xff\xd9", JPEGBaseline8Bit, {}, "it has no size"),
        "packed": (bytes(64) + bytes(100_000), RLELossless, {}, "expected a compressed picture of at most 9,216 bytes"),
    }
    for name, (stream, syntax, tags, message) in cases.items():
        path = write_compressed(tmp_path / f"{name}.dcm", stream, syntax, **tags)
        assert message in refusal(path), name


def test_fragments_and_elements_without_end_are_refused(tmp_path: Path) -> None:
    path = write_compressed(tmp_path / "a.dcm", jpeg(), JPEGBaseline8Bit)
    whole = path.read_bytes()
    empty = b"\xfe\xff\x00\xe0" + bytes(4)
    path.write_bytes(whole.replace(b"\xfe\xff\xdd\xe0", empty * 10_001 + b"\xfe\xff\xdd\xe0"))
    assert "over the limit of 10,000 fragments" in refusal(path)
    # Elements of 8 bytes each, which a parser makes an object of hundreds of bytes of.
    element = struct.pack("<HH2sH", 0x0009, 0x1001, b"LO", 0)
    path.write_bytes(whole[:-8] + b"\xfe\xff\xdd\xe0" + bytes(4) + element * 300_000)
    assert "elements over the limit of 100,000 reads" in refusal(path)
    # The same within a sequence without a length.
    item = b"\xfe\xff\x00\xe0" + bytes(4)
    at = whole.find(struct.pack("<HH", 0x0028, 0x0002))
    nested = (
        struct.pack("<HH2sHI", 0x0011, 0x1010, b"SQ", 0, 0xFFFFFFFF) + item * 300_000 + b"\xfe\xff\xdd\xe0" + bytes(4)
    )
    path.write_bytes(whole[:at] + nested + whole[at:])
    assert "elements over the limit of 100,000 reads" in refusal(path)


def test_a_deflated_data_set_is_refused_before_it_is_inflated(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a.dcm", STORED)
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    dataset.save_as(path)
    assert "got a deflated data set" in refusal(path)


@pytest.mark.skipif(not FAULTS.is_dir(), reason="the folder of failing inputs is not beside the checkout")
def test_the_failing_inputs() -> None:
    pictures = {path.stem: pixels(path).astype(int) for path in sorted(FAULTS.glob("*.dcm"))}
    assert len(pictures) >= 9
    inside = pictures["padding_value"][16:-16, 16:-16]
    assert np.ptp(inside[inside > 0]) > 200 or np.ptp(pictures["padding_value"]) > 200
    assert np.abs(pictures["negative_slope"] - pictures["negative_slope_with_window"]).max() <= 1
    plain = pictures["window_width_0"]
    for name in ("photometric_lower_case", "voi_lut_empty_with_window", "modality_lut_12_bit", "float_pixel_data"):
        assert np.abs(pictures[name] - plain).max() <= 1, name

"""DICOM files as grey images: files written here, and pydicom's own test files."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from diffrgen.errors import DataError
from diffrgen.images import read_grey
from diffrgen.images.grey import probe_grey

pydicom = pytest.importorskip("pydicom", reason="DICOM needs the extra diffrgen[dicom]")
from pydicom.dataset import FileDataset, FileMetaDataset  # noqa: E402
from pydicom.uid import ExplicitVRLittleEndian, RLELossless, SecondaryCaptureImageStorage, generate_uid  # noqa: E402

STORED = np.array([[0, 1000, 2000], [3000, 4000, 4095]], dtype=np.uint16)


def write(path: Path, values: np.ndarray, *, bits: int = 12, compress: bool = False, **tags: Any) -> Path:
    """A secondary capture of stored values (H, W)."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset = FileDataset(str(path), {}, file_meta=meta, preamble=bytes(128))
    dataset.SOPClassUID, dataset.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    dataset.Rows, dataset.Columns = values.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8 * values.itemsize, bits, bits - 1
    dataset.PixelRepresentation = int(values.dtype.kind == "i")
    dataset.PixelData = values.tobytes()
    dataset["PixelData"].VR = "OW"
    for name, value in tags.items():
        setattr(dataset, name, value)
    if compress:
        dataset.compress(RLELossless)
    dataset.save_as(path, enforce_file_format=True)
    return path


def pixels(path: Path) -> list[list[int]]:
    return np.asarray(read_grey(path)).tolist()


def test_extremes_become_black_and_white_where_no_window_is_given(tmp_path: Path) -> None:
    """round(255 v / 4095)."""
    assert pixels(write(tmp_path / "a.dcm", STORED)) == [[0, 62, 125], [187, 249, 255]]


def test_monochrome1_is_the_same_picture_stored_inverted(tmp_path: Path) -> None:
    plain = write(tmp_path / "2.dcm", STORED, WindowCenter=2048, WindowWidth=4096)
    inverted = write(
        tmp_path / "1.dcm", 4095 - STORED, PhotometricInterpretation="MONOCHROME1", WindowCenter=2048, WindowWidth=4096
    )
    assert pixels(plain) == pixels(inverted) == [[0, 62, 125], [187, 249, 255]]


def test_window_is_applied_to_rescaled_values(tmp_path: Path) -> None:
    """DICOM PS3.3 C.11.2.1.2: share = (x - (c - 1/2)) / (w - 1) + 1/2, clipped; x = 2 v - 1000, c = 3000, w = 2001.

    x = -1000, 1000, 3000, 5000, ...: below, below, (3000 - 2999.5) / 2000 + 0.5 = 0.50025, above, above, above.
    """
    path = write(
        tmp_path / "a.dcm", STORED, WindowCenter=3000, WindowWidth=2001, RescaleSlope=2, RescaleIntercept=-1000
    )
    assert pixels(path) == [[0, 0, 128], [255, 255, 255]]


def test_the_first_of_several_windows_counts(tmp_path: Path) -> None:
    several = write(tmp_path / "a.dcm", STORED, WindowCenter=[1000, 3000], WindowWidth=[1001, 501])
    one = write(tmp_path / "b.dcm", STORED, WindowCenter=1000, WindowWidth=1001)
    assert pixels(several) == pixels(one)


def test_signed_values(tmp_path: Path) -> None:
    values = np.array([[-1000, 0, 1000]], dtype=np.int16)
    assert pixels(write(tmp_path / "a.dcm", values, bits=16)) == [[0, 128, 255]]


def test_a_constant_picture_is_black(tmp_path: Path) -> None:
    assert pixels(write(tmp_path / "a.dcm", np.full((2, 2), 7, np.uint16))) == [[0, 0], [0, 0]]


def test_compressed_pixels_are_the_same_and_the_name_does_not_matter(tmp_path: Path) -> None:
    plain, packed = write(tmp_path / "a.dcm", STORED), write(tmp_path / "picture.png", STORED, compress=True)
    assert pixels(plain) == pixels(packed)


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ({"NumberOfFrames": 2}, "expected one picture, got 2 frames"),
        ({"Rows": 20_000, "Columns": 20_000}, "20000 x 20000 pixels are over the limit of 89478485"),
        ({"Rows": 3}, "expected 18 bytes in the attribute PixelData, as in the tags, got 12"),
        ({"PhotometricInterpretation": "HSV"}, "a.dcm: expected a photometric inter.* MONOCHROME1, .*, got another"),
    ],
)
def test_what_cannot_be_shown_is_refused(tmp_path: Path, tags: dict[str, Any], message: str) -> None:
    path = write(tmp_path / "a.dcm", STORED, **tags)
    for read in (read_grey, probe_grey):
        with pytest.raises(DataError, match=message):
            read(path)


def test_no_pixels_and_no_dicom_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.dcm", STORED)
    dataset = pydicom.dcmread(path)
    del dataset.PixelData
    dataset.save_as(path)
    with pytest.raises(DataError, match="expected a picture, got a DICOM file without pixel data"):
        read_grey(path)
    path.write_bytes(b"anything")
    with pytest.raises(DataError, match=r"a\.dcm: the DICOM file is damaged or cannot be shown \(InvalidDicomError"):
        read_grey(path)


def test_without_pydicom_the_message_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.dcm", STORED)
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(DataError, match=r'pip install "diffrgen\[dicom\]"'):
        read_grey(path)


SAMPLES = sorted(Path(pydicom.__file__).parent.glob("data/test_files/*.dcm"))
# one MR picture in other byte orders and in three lossless compressions
SAME = ["MR_small_RLE", "MR_small_bigendian", "MR_small_implicit", "MR_small_jp2klossless", "MR_small_jpeg_ls_lossless"]


@pytest.mark.parametrize("name", SAME)
def test_one_picture_in_other_transfer_syntaxes(name: str) -> None:
    folder = SAMPLES[0].parent
    assert pixels(folder / f"{name}.dcm") == pixels(folder / "MR_small.dcm")


def test_every_sample_of_pydicom_loads_or_says_why_not() -> None:
    loaded, refused = 0, []
    for path in SAMPLES:
        try:
            loaded += read_grey(path).size > (0, 0)
        except DataError as error:
            refused.append(str(error).startswith(str(path)))
    assert loaded >= 45
    assert all(refused)


def test_damage_never_escapes_as_another_error(tmp_path: Path) -> None:
    """Cut off, and bytes changed, at random places."""
    whole = write(tmp_path / "a.dcm", STORED, WindowCenter=2048, WindowWidth=4096).read_bytes()
    generator = np.random.default_rng(0)
    path = tmp_path / "b.dcm"
    for _ in range(300):
        content = bytearray(whole)
        for at in generator.integers(132, len(content), 4):
            content[at] = generator.integers(256)
        path.write_bytes(content[: generator.integers(100, len(content) + 1)])
        with contextlib.suppress(DataError):
            read_grey(path)

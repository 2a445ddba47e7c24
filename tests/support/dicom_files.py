"""DICOM files written for tests: a secondary capture of stored values with any tags, however odd."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from pydicom import Dataset
from pydicom.dataelem import RawDataElement
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.filewriter import write_file_meta_info
from pydicom.tag import BaseTag, Tag
from pydicom.uid import UID, ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

# An invented patient, so that a leak shows.
PATIENT = "SECRET^NAME"


def write_dicom(
    path: Path, values: np.ndarray, *, bits: int = 12, raw: dict[str, tuple[str, bytes]] | None = None, **tags: Any
) -> Path:
    """Write stored values (H, W) or (H, W, 3); raw: attributes as (VR, bytes); None: no such tag."""
    dataset = _dataset(path, ExplicitVRLittleEndian)
    dataset.Rows, dataset.Columns = values.shape[:2]
    colour = values.ndim == 3
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = (3, "RGB") if colour else (1, "MONOCHROME2")
    if colour:
        dataset.PlanarConfiguration = 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8 * values.itemsize, bits, bits - 1
    dataset.PixelRepresentation = int(values.dtype.kind == "i")
    dataset.PixelData = values.tobytes()
    dataset["PixelData"].VR = "OW"
    for name, value in tags.items():
        if value is None:
            del dataset[name]
        else:
            setattr(dataset, name, value)
    for name, (kind, content) in (raw or {}).items():
        tag = Tag(name)
        dataset._dict[BaseTag(tag)] = RawDataElement(BaseTag(tag), kind, len(content), content, 0, False, True, True)
    dataset.save_as(path, enforce_file_format=True)
    return path


def write_compressed(path: Path, frame: bytes, syntax: UID, *, rows: int = 64, columns: int = 64, **tags: Any) -> Path:
    """Write a file of 8-bit grey whose pixel data are the codestream `frame`."""
    dataset = _dataset(path, syntax)
    dataset.Rows, dataset.Columns, dataset.SamplesPerPixel, dataset.PhotometricInterpretation = (
        rows,
        columns,
        1,
        "MONOCHROME2",
    )
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 8, 8, 7, 0
    for name, value in tags.items():
        setattr(dataset, name, value)
    dataset.PixelData = encapsulate([frame])
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    dataset.save_as(path, enforce_file_format=True)
    return path


def lookup_table(first: int, values: np.ndarray, *, bits: int = 16, count: int | None = None) -> list[Dataset]:
    """A sequence of one lookup table."""
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [len(values) % 65536 if count is None else count, first, bits])
    item.add_new("LUTData", "OW", values.astype("<u2").tobytes())
    return [item]


def without_syntax(path: Path) -> Path:
    """Take the transfer syntax out of a file's meta information."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    content = _behind_meta(path)
    with path.open("wb") as stream:
        stream.write(bytes(128) + b"DICM")
        write_file_meta_info(stream, meta, enforce_standard=False)
        stream.write(content)
    return path


def without_head(path: Path) -> Path:
    """Take preamble, mark and meta information away, as old archives wrote files."""
    path.write_bytes(_behind_meta(path))
    return path


def _behind_meta(path: Path) -> bytes:
    """The data set: the group length, whose value is 4 bytes at 140, is the first element of the meta information."""
    whole = path.read_bytes()
    return whole[144 + int.from_bytes(whole[140:144], "little") :]


def _dataset(path: Path, syntax: UID) -> FileDataset:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = syntax
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset = FileDataset(str(path), {}, file_meta=meta, preamble=bytes(128))
    dataset.SOPClassUID, dataset.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    dataset.PatientName = PATIENT
    return dataset

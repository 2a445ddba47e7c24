"""An uploaded image as a checked file in a folder of its own, which is deleted after use."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from diffrgen.errors import DataError
from diffrgen.images import probe_grey
from diffrgen.images.dicom import has_dicom_mark
from diffrgen.serving.dicom_reader import DicomReader
from diffrgen.serving.options import UploadLimits

PNG, JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"


@contextmanager
def private_folder() -> Iterator[Path]:
    """A new folder that only this user can read and that is gone, with all in it, at the end of the block."""
    with tempfile.TemporaryDirectory(prefix="diffrgen-") as folder:
        yield Path(folder)


def checked_image(content: bytes, path: Path, limits: UploadLimits, dicoms: DicomReader, *, dicom: bool = False) -> Path:
    """Write `content` to `path` with the ending of its format, check it, and return the file; of a DICOM its PNG.

    dicom: the visitor's file was named like a DICOM file, so that one without the format's mark is read as such.

    Raises:
        DataError: no PNG, JPEG or DICOM, damaged, or too large, in words for the visitor.
    """
    path = path.with_suffix(_suffix(content, dicom))
    path.write_bytes(content)
    with told_to_visitors(limits):
        if path.suffix == ".dcm":
            file, path = path, path.with_suffix(".png")
            dicoms.to_png(file, path, max_pixels=limits.max_pixels)
            file.unlink()
        probe_grey(path, max_pixels=limits.max_pixels)
    return path


@contextmanager
def told_to_visitors(limits: UploadLimits) -> Iterator[None]:
    """Turn the DataError of an image reader into one for the visitor: without a path or a value of the file.

    What a decoder says about a DICOM file may quote the values that it stumbled over, which may name a patient.
    """
    try:
        yield
    except DataError as error:
        if "over the limit" in str(error):
            reason = f"The image is too large: at most {limits.max_megapixels} million pixels are accepted."
        elif "pydicom" in str(error):
            reason = "DICOM files cannot be read here: the service lacks the package for them."
        else:
            reason = "The image cannot be read: it is damaged or cut off, holds no single picture, or is of a rare kind."
        raise DataError(reason) from None


def _suffix(content: bytes, dicom: bool) -> str:
    """The ending of the format that `content` begins like; other formats have no business here."""
    if content.startswith(PNG):
        return ".png"
    if content.startswith(JPEG):
        return ".jpg"
    if has_dicom_mark(content) or (dicom and content):
        return ".dcm"
    what = "is empty" if not content else "is none of them"
    raise DataError(f"This is not an X-ray image: needed a PNG, JPG or DICOM file; this one {what}.")

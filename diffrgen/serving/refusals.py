"""Messages for visitors whose upload is rejected."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from diffrgen.errors import DataError
from diffrgen.serving.options import UploadLimits


@contextmanager
def for_visitors(limits: UploadLimits) -> Iterator[None]:
    """Turn the DataError of an image reader into one for the visitor: without a path or a value of the file.

    The message of a decoder about a DICOM file may quote values that identify a patient.
    """
    try:
        yield
    except DataError as error:
        if re.search(r"pixels.* over the limit|over the limit of \d+ pixels", str(error)):
            reason = f"The image is too large: at most {limits.max_megapixels} million pixels are accepted."
        elif "pydicom" in str(error):
            reason = "DICOM files cannot be read here: the service lacks the package for them."
        else:
            reason = "The image cannot be read: it is damaged or cut off, holds no single picture, or is of a rare kind."
        raise DataError(reason) from None


def too_many_bytes(limits: UploadLimits) -> str:
    """Return the message for a file that is too large."""
    return f"The file is too large: at most {limits.max_megabytes} MB are accepted."

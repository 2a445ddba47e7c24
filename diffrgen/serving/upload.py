"""A decoded upload: grey pixels, and the few tags that a study requires."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from diffrgen.errors import DataError
from diffrgen.images import ResizedImages
from diffrgen.images.burned_text import TextRegion, text_warning
from diffrgen.records import ViewKind
from diffrgen.reporting.study_images import StudyImages


@dataclass(frozen=True)
class Upload(ResizedImages):
    """Pixels for each `resize` that the networks ask for, and the tags of a DICOM file.

    patient, study: digests of the two identifiers under the service's secret key, "" if there
    is no such tag; they can be compared and reveal nothing else. view: the kind of view by its tag. text: where the image
    may have text burned in.
    """

    patient: str = field(default="", repr=False)
    study: str = field(default="", repr=False)
    view: ViewKind = "unknown"
    text: tuple[TextRegion, ...] = ()


def upload_warnings(uploads: Sequence[ResizedImages]) -> list[str]:
    """Return the points to check before these images, or a page with them, are shared."""
    warnings = [text_warning(upload.text) for upload in uploads if isinstance(upload, Upload)]
    return list(dict.fromkeys(warning for warning in warnings if warning is not None))


def study_of_uploads(uploads: Sequence[ResizedImages]) -> StudyImages:
    """Return the study of decoded images; DataError, with a message for the visitor, if they are of several studies."""
    check_one(uploads, "patient")
    check_one(uploads, "study")
    return StudyImages(tuple(uploads), tuple(_view(upload) for upload in uploads))


def check_one(uploads: Sequence[ResizedImages], what: str) -> None:
    """Raise DataError if the tags of `uploads` name more than one `what`: "patient" or "study"."""
    named = {getattr(upload, what) for upload in uploads if isinstance(upload, Upload)} - {""}
    if len(named) > 1:
        raise DataError(f"The images are of {len(named)} {'patients' if what == 'patient' else 'studies'}, by their tags; "
                        f"please send those of one {what}.")


def _view(upload: ResizedImages) -> ViewKind:
    return upload.view if isinstance(upload, Upload) else "unknown"

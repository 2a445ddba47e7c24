"""The study, the patient and the view of a DICOM file: compared in memory, never written or quoted."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from diffrgen.images.attributes import text_of
from diffrgen.images.dicom import START, UNMARKED, has_dicom_mark, read_attributes
from diffrgen.images.silence import silent_dicom
from diffrgen.records import ViewKind, view_kind


@dataclass(frozen=True)
class DicomStudy:
    """Tags of one file: the identifiers of its study and patient, "" if there is none, and its view."""

    study: str = field(repr=False)
    patient: str = field(repr=False)
    view: ViewKind


def dicom_study(file: Path) -> DicomStudy | None:
    """Return the tags of a DICOM file about its study; None for any other file, and if the tags cannot be read.

    No fault is raised here: reading the picture names it.
    """
    try:
        with file.open("rb") as stream:
            start = stream.read(START)
        if not has_dicom_mark(start) and start[:2] not in UNMARKED:
            return None
        with silent_dicom():
            names = ("StudyInstanceUID", "PatientID", "ViewPosition")
            dataset = read_attributes(file, names, before_pixels=True)
            study, patient, view = (text_of(dataset, name) for name in names)
    except Exception:  # pydicom raises nearly every built-in exception on damaged files, and may not be installed
        return None
    return DicomStudy(study, patient, view_kind(view))

"""The patient, the study and the image that a report is about: the few tags that leave a DICOM file, on request only."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from diffrgen.clinical.origin import INSTALL
from diffrgen.errors import DataError
from diffrgen.images.dicom import START, has_dicom_mark
from diffrgen.images.silence import silent_dicom

if TYPE_CHECKING:
    from pydicom import Dataset

MODALITIES = ("CR", "DX", "RG")
# Values of ViewPosition for a lateral view.
LATERAL = frozenset({"LL", "RL", "LATERAL", "LAT"})
# Attributes that identify the image.
IMAGE = ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID")
# Attributes of the modules Patient and General Study (PS3.3) that a report of the study must repeat.
PATIENT = ("PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex")
STUDY = (
    *("StudyInstanceUID", "StudyDate", "StudyTime", "ReferringPhysicianName", "StudyID", "AccessionNumber"),
    *("StudyDescription", "PatientAge", "PatientSize", "PatientWeight"),
)
REFUSED = "a report can be exported for a DICOM image of modality CR, DX or RG"


@dataclass(frozen=True)
class SourceImage:
    """A radiograph in a DICOM file.

    tags: those of `IMAGE`, `PATIENT` and `STUDY` that the file has, and ViewPosition; texts in Unicode.
    """

    file: Path
    tags: Dataset

    def text(self, keyword: str) -> str:
        """Return a tag as text, empty if the file does not have it."""
        value = self.tags.get(keyword)
        return "" if value is None else str(value)


def read_source(file: Path) -> SourceImage:
    """Return the tags of a DICOM file that a report of it repeats.

    Raises:
        DataError: pydicom is missing; the file is no DICOM file, holds several frames, or is of another modality than
            `MODALITIES`; a UID of `IMAGE` is missing or not one; a tag holds what DICOM does not allow. Tags are named,
            never quoted.
    """
    try:
        import pydicom
    except ImportError as error:
        raise DataError(INSTALL) from error
    try:
        with file.open("rb") as stream:
            is_dicom = has_dicom_mark(stream.read(START))
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror}") from error
    if not is_dicom:
        raise DataError(f"{file}: {REFUSED}, got a file of another format")
    try:
        with silent_dicom():
            dataset = pydicom.dcmread(file, stop_before_pixels=True)
            frames, modality = int(dataset.get("NumberOfFrames") or 1), str(dataset.get("Modality", ""))
    except Exception as error:  # pydicom raises nearly every built-in exception on damaged files
        kind = type(error).__name__
    else:
        if frames != 1 or "SharedFunctionalGroupsSequence" in dataset or "PerFrameFunctionalGroupsSequence" in dataset:
            raise DataError(f"{file}: {REFUSED}, got a multi-frame or enhanced object")
        if modality not in MODALITIES:
            raise DataError(f"{file}: {REFUSED}, got {'another modality' if modality else 'none'}")
        return SourceImage(file, _kept(dataset, file))
    raise DataError(f"{file}: the DICOM file is damaged ({kind}; the details are left out, as they may quote its tags)")


def check_patients(sources: Iterable[SourceImage]) -> None:
    """Raise DataError if images of one study name different patients, by their files."""
    first: dict[str, SourceImage] = {}
    for source in sources:
        other = first.setdefault(source.text("StudyInstanceUID"), source)
        if any(source.text(keyword) != other.text(keyword) for keyword in ("PatientID", "PatientName")):
            raise DataError(f"{other.file} and {source.file}: expected one patient in a study, got two; correct the files")


def read_study(files: Sequence[Path]) -> tuple[SourceImage, ...]:
    """Return the tags of the images that one report is about, as `read_source`; DataError for those of several studies."""
    sources = tuple(read_source(file) for file in files)
    check_study(sources)
    return sources


def check_study(sources: Sequence[SourceImage]) -> None:
    """Raise DataError if images of one report are of several patients or studies, by their files."""
    check_patients(sources)
    for source in sources[1:]:
        if source.text("StudyInstanceUID") != sources[0].text("StudyInstanceUID"):
            raise DataError(f"{sources[0].file} and {source.file}: {REFUSED}, got images of two studies for one report")


def _kept(dataset: Dataset, file: Path) -> Dataset:
    import pydicom
    from pydicom.datadict import dictionary_VR, tag_for_keyword
    from pydicom.dataelem import DataElement
    from pydicom.uid import UID

    kept = pydicom.Dataset()
    for keyword in (*IMAGE, *PATIENT, *(name for name in STUDY if name not in IMAGE), "ViewPosition"):
        tag = tag_for_keyword(keyword)
        assert tag is not None
        try:
            with silent_dicom():
                text = _text(dataset.get(keyword))
                if text:
                    kept.add(DataElement(tag, dictionary_VR(tag), text, validation_mode=pydicom.config.RAISE))
        except Exception:  # as in `read_source`
            text = None
        # Outside of the handler, so that no traceback shows the value.
        if text is None:
            raise DataError(f"{file}: its tag {keyword} holds a value that DICOM does not allow; correct the file")
    for keyword in IMAGE:
        if not UID(str(kept.get(keyword, ""))).is_valid:
            raise DataError(f"{file}: its tag {keyword} holds no UID, which a report of the image needs; correct the file")
    return kept


def _text(value: object) -> str:
    """A tag's value as Unicode text, whichever character set the file has; ValueError for several values."""
    from pydicom.multival import MultiValue

    if isinstance(value, MultiValue):
        raise ValueError("expected one value, got several")
    return "" if value is None else str(value).strip()

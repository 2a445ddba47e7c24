"""A draft report as a DICOM Basic Text SR (PS3.3 A.35.1), after template TID 2000 of PS3.16."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from diffrgen.clinical.origin import MANUFACTURER, NOTICE, ReportOrigin
from diffrgen.clinical.source import PATIENT, STUDY, SourceImage

if TYPE_CHECKING:
    from pydicom import Dataset
    from pydicom.sr.coding import Code

# Attributes of type 2 in the modules Patient and General Study: there, if only empty.
REQUIRED = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex"),
    *("StudyDate", "StudyTime", "ReferringPhysicianName", "StudyID", "AccessionNumber"),
)
ENGLISH = ("en", "RFC5646", "English")


def basic_text_sr(
    sources: Sequence[SourceImage],
    sentences: Sequence[str],
    origin: ReportOrigin,
    impression: Sequence[str] | None = None,
    *,
    now: datetime,
) -> Dataset:
    """Return the SR document of a report, ready to be saved: PARTIAL, UNVERIFIED, PRELIMINARY, with new UIDs.

    The root "Diagnostic imaging report" names its language and the device that observed, and holds the section
    "Findings": a TEXT item "Finding" a sentence, each inferred from the source images, which are of one study; with an
    `impression` also the section "Impressions", likewise. Their patient and study are repeated; software, run and notice are
    contributing equipment. now: when it was generated, local time.
    """
    from pydicom.sr.codedict import codes
    from pydicom.sr.coding import Code

    document = _document(sources, now)
    document.SeriesDescription = f"{MANUFACTURER}: draft report, research use only"
    document.ContributingEquipmentSequence = [_equipment(origin, now)]
    images = [_image(source) for source in sources]
    sections = [_section(sentences, codes.DCM.Findings, codes.DCM.Finding, images)]
    if impression is not None:
        sections.append(_section(impression, codes.DCM.Impressions, codes.DCM.Impression, images))
    language = _item("HAS CONCEPT MOD", "CODE", codes.DCM.LanguageOfContentItemAndDescendants)
    language.ConceptCodeSequence = [_code(Code(*ENGLISH))]
    observer = _item("HAS OBS CONTEXT", "CODE", codes.DCM.ObserverType)
    observer.ConceptCodeSequence = [_code(codes.DCM.Device)]
    device = _item("HAS OBS CONTEXT", "UIDREF", codes.DCM.DeviceObserverUID)
    device.UID = origin.uid
    document.ValueType = "CONTAINER"
    document.ConceptNameCodeSequence = [_code(codes.LN.DiagnosticImagingReport)]
    document.ContinuityOfContent = "SEPARATE"
    document.ContentTemplateSequence = [_template()]
    document.ContentSequence = [language, observer, device, *sections]
    return document


def _document(sources: Sequence[SourceImage], now: datetime) -> Dataset:
    """The modules about patient, study, series and document."""
    from pydicom import Dataset
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import BasicTextSRStorage, ExplicitVRLittleEndian, generate_uid

    source, document = sources[0], Dataset()
    document.SpecificCharacterSet = "ISO_IR 192"
    for keyword in (*PATIENT, *STUDY):
        if keyword in source.tags or keyword in REQUIRED:
            setattr(document, keyword, source.text(keyword) or None)
    document.SOPClassUID = BasicTextSRStorage
    document.SOPInstanceUID = generate_uid(prefix=None)
    document.Modality = "SR"
    document.SeriesInstanceUID = generate_uid(prefix=None)
    document.SeriesNumber, document.InstanceNumber = 1, 1
    document.Manufacturer = MANUFACTURER
    document.ReferencedPerformedProcedureStepSequence = []
    document.PerformedProcedureCodeSequence = []
    document.CompletionFlag, document.CompletionFlagDescription = "PARTIAL", NOTICE
    document.VerificationFlag, document.PreliminaryFlag = "UNVERIFIED", "PRELIMINARY"
    date, time = f"{now:%Y%m%d}", f"{now:%H%M%S}"
    document.ContentDate, document.ContentTime = date, time
    document.InstanceCreationDate, document.InstanceCreationTime = date, time
    evidence = Dataset()
    evidence.StudyInstanceUID = source.text("StudyInstanceUID")
    evidence.ReferencedSeriesSequence = _series(sources)
    document.CurrentRequestedProcedureEvidenceSequence = [evidence]
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = document.SOPClassUID, document.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    document.file_meta = meta
    return document


def _series(sources: Sequence[SourceImage]) -> list[Dataset]:
    """The source images by series."""
    from pydicom import Dataset

    found: dict[str, Dataset] = {}
    for source in sources:
        uid = source.text("SeriesInstanceUID")
        if uid not in found:
            found[uid] = Dataset()
            found[uid].SeriesInstanceUID = uid
            found[uid].ReferencedSOPSequence = []
        found[uid].ReferencedSOPSequence.append(_reference(source))
    return list(found.values())


def _image(source: SourceImage) -> Dataset:
    image = _item("INFERRED FROM", "IMAGE", None)
    image.ReferencedSOPSequence = [_reference(source)]
    return image


def _equipment(origin: ReportOrigin, now: datetime) -> Dataset:
    from pydicom import Dataset
    from pydicom.sr.codedict import codes

    equipment = Dataset()
    equipment.PurposeOfReferenceCodeSequence = [_code(codes.DCM.ProcessingEquipment)]
    equipment.Manufacturer = equipment.ManufacturerModelName = MANUFACTURER
    equipment.SoftwareVersions = origin.software
    # 64 digits, as many as the attribute holds.
    equipment.DeviceSerialNumber = origin.digest
    equipment.ContributionDateTime = f"{now:%Y%m%d%H%M%S}"
    equipment.ContributionDescription = f"{NOTICE} SHA-256 of the run's weights: {origin.digest}"
    return equipment


def _section(sentences: Sequence[str], concept: Code, each: Code, images: Sequence[Dataset]) -> Dataset:
    section = _item("CONTAINS", "CONTAINER", concept)
    section.ContinuityOfContent = "SEPARATE"
    texts = [_text(sentence, each, images) for sentence in sentences]
    if texts:
        section.ContentSequence = texts
    return section


def _text(sentence: str, concept: Code, images: Sequence[Dataset]) -> Dataset:
    item = _item("CONTAINS", "TEXT", concept)
    item.TextValue = sentence
    item.ContentSequence = list(images)
    return item


def _item(relationship: str, kind: str, concept: Code | None) -> Dataset:
    from pydicom import Dataset

    item = Dataset()
    item.RelationshipType, item.ValueType = relationship, kind
    if concept is not None:
        item.ConceptNameCodeSequence = [_code(concept)]
    return item


def _code(code: Code) -> Dataset:
    from pydicom import Dataset

    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code.value, code.scheme_designator, code.meaning
    return item


def _reference(source: SourceImage) -> Dataset:
    from pydicom import Dataset

    item = Dataset()
    item.ReferencedSOPClassUID = source.text("SOPClassUID")
    item.ReferencedSOPInstanceUID = source.text("SOPInstanceUID")
    return item


def _template() -> Dataset:
    from pydicom import Dataset

    item = Dataset()
    item.MappingResource, item.TemplateIdentifier = "DCMR", "2000"
    return item

"""A draft report as a DICOM Basic Text SR (PS3.3 A.35.1), after template TID 2000 of PS3.16."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from diffrgen.clinical.draft import DraftReport, DraftSentence
from diffrgen.clinical.origin import EDITED_NOTICE, MANUFACTURER, NOTICE, ReportOrigin
from diffrgen.clinical.source import PATIENT, STUDY, SourceImage

if TYPE_CHECKING:
    from pydicom import Dataset
    from pydicom.sr.coding import Code

# Attributes of type 2 in the modules Patient and General Study: required, but may be empty.
REQUIRED = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex"),
    *("StudyDate", "StudyTime", "ReferringPhysicianName", "StudyID", "AccessionNumber"),
)
ENGLISH = ("en", "RFC5646", "English")
# DICOM has no code for what a device generated before a person changed it; designators that begin with 99 are private.
SCHEME, SCHEME_NAME = "99DIFFRGEN", "Private codes of DiffRGenNet"
AS_GENERATED = ("generated-text", SCHEME, "As generated")


def basic_text_sr(sources: Sequence[SourceImage], report: DraftReport, origin: ReportOrigin, *, now: datetime) -> Dataset:
    """Return the SR document of a report, ready to be saved: PARTIAL, UNVERIFIED, PRELIMINARY, with new UIDs.

    The root "Diagnostic imaging report" names its language and the device that observed, and holds the section
    "Findings": a TEXT item "Finding" a sentence, each inferred from the source images, which are of one study; where the run
    writes an impression, also the section "Impressions", likewise. A sentence that a reader changed is also inferred from
    the TEXT "As generated"; one that the run rates has the property "Certainty of Finding" (as TEXT: a Basic Text SR holds
    no numbers). Comments list the changes and the findings not mentioned. Patient and study of the images are repeated;
    software, run and notice are contributing equipment, and so is the page that a report was edited on. now: when it was
    generated, local time.
    """
    from pydicom.sr.codedict import codes
    from pydicom.sr.coding import Code

    document = _document(sources, now)
    document.SeriesDescription = f"{MANUFACTURER}: draft report, research use only"
    document.ContributingEquipmentSequence = [_equipment(origin, now)]
    if report.changes:
        document.ContributingEquipmentSequence.append(_editor(report, origin, now))
        document.CompletionFlagDescription = EDITED_NOTICE
    if any(sentence.generated is not None for sentence in report.sentences):
        document.CodingSchemeIdentificationSequence = [_scheme()]
    images = [_image(source) for source in sources]
    comments = [_text(line, codes.DCM.Comment) for line in (report.changes, report.left_out) if line]
    sections = [_section(codes.DCM.Findings, [_sentence(each, codes.DCM.Finding, images) for each in report.findings])]
    if report.impression is not None:
        items = [_sentence(each, codes.DCM.Impression, images) for each in report.impression]
        sections.append(_section(codes.DCM.Impressions, items))
    if comments:
        sections[-1].ContentSequence = [*sections[-1].get("ContentSequence", ()), *comments]
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


def _editor(report: DraftReport, origin: ReportOrigin, now: datetime) -> Dataset:
    """The page on which a reader edited the report: the reader is unknown, so there is no observer or verifier."""
    from pydicom import Dataset
    from pydicom.sr.codedict import codes

    equipment = Dataset()
    equipment.PurposeOfReferenceCodeSequence = [_code(codes.DCM.ModifyingEquipment)]
    equipment.Manufacturer, equipment.ManufacturerModelName = MANUFACTURER, f"{MANUFACTURER} web page"
    equipment.SoftwareVersions = origin.software
    equipment.ContributionDateTime = f"{now:%Y%m%d%H%M%S}"
    equipment.ContributionDescription = report.changes
    return equipment


def _scheme() -> Dataset:
    from pydicom import Dataset

    scheme = Dataset()
    scheme.CodingSchemeDesignator, scheme.CodingSchemeName = SCHEME, SCHEME_NAME
    return scheme


def _section(concept: Code, items: Sequence[Dataset]) -> Dataset:
    section = _item("CONTAINS", "CONTAINER", concept)
    section.ContinuityOfContent = "SEPARATE"
    if items:
        section.ContentSequence = list(items)
    return section


def _sentence(sentence: DraftSentence, concept: Code, images: Sequence[Dataset]) -> Dataset:
    from pydicom.sr.codedict import codes
    from pydicom.sr.coding import Code

    item = _text(sentence.text, concept)
    item.ContentSequence = list(images)
    if sentence.generated is not None:
        item.ContentSequence.append(_text(sentence.generated, Code(*AS_GENERATED), relationship="INFERRED FROM"))
    if sentence.confidence:
        certainty = _text(sentence.confidence, codes.DCM.CertaintyOfFinding, relationship="HAS PROPERTIES")
        item.ContentSequence.append(certainty)
    return item


def _text(text: str, concept: Code, *, relationship: str = "CONTAINS") -> Dataset:
    item = _item(relationship, "TEXT", concept)
    item.TextValue = text
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

"""A draft report as a FHIR R4 DiagnosticReport."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from datetime import datetime
from html import escape
from typing import Any

from diffrgen.clinical.draft import DraftReport
from diffrgen.clinical.origin import EDITED_NOTICE, INSTALL, NOTICE, ReportOrigin
from diffrgen.clinical.source import LATERAL, SourceImage
from diffrgen.errors import DataError

LOINC, RADIOLOGY = "http://loinc.org", "http://terminology.hl7.org/CodeSystem/v2-0074"
# LOINC's codes of views of the chest.
VIEWS = {
    frozenset({"PA"}): ("24648-8", "XR Chest PA upright"),
    frozenset({"AP"}): ("36572-6", "XR Chest AP"),
    frozenset({"LATERAL"}): ("39051-8", "XR Chest Lateral"),
    frozenset({"PA", "LATERAL"}): ("42272-5", "XR Chest PA and Lateral"),
    frozenset({"AP", "LATERAL"}): ("36687-2", "XR Chest AP and Lateral"),
}
ONE_VIEW, SEVERAL_VIEWS = ("36554-4", "XR Chest Single view"), ("30745-4", "XR Chest Views")
# Asserted by artificial intelligence, not by a person.
BY_MACHINE = {
    "system": "http://terminology.hl7.org/CodeSystem/v3-ObservationValue",
    "code": "AIAST",
    "display": "Artificial Intelligence asserted",
}
# R5's DiagnosticReport.note as an extension of R4, by HL7's rule for cross-version extensions.
NOTE = "http://hl7.org/fhir/5.0/StructureDefinition/extension-DiagnosticReport.note"


def diagnostic_report(
    sources: Sequence[SourceImage], report: DraftReport, origin: ReportOrigin, *, now: datetime
) -> dict[str, Any]:
    """Return the resource of a report as plain JSON values, checked against R4: preliminary, category radiology.

    The code is LOINC's for the views of the source images, which are of one study; its patient is the subject by
    identifier, its study the imaging study, its accession number an identifier. `meta` marks it as asserted by artificial
    intelligence and names the SHA-256 of the run's weights. Where the run writes an impression, that is the conclusion, else the
    whole report. A report that a reader edited stays preliminary, as nobody has
    signed it: notes state that it was edited, give the original of each changed sentence, how sure the run is of each sentence
    and what is not mentioned, as the narrative and the attachment do. now: when it was generated, with its time zone.

    Raises:
        DataError: fhir.resources is missing. ValueError: `now` has no time zone.
    """
    if now.tzinfo is None:
        raise ValueError("expected a time with its time zone, got one without")
    source, (code, display) = sources[0], _views(sources)
    resource: dict[str, Any] = {
        "resourceType": "DiagnosticReport",
        "meta": {"source": f"urn:sha256:{origin.digest}", "security": [BY_MACHINE]},
        "text": {"status": "generated", "div": _narrative(report, origin)},
        "extension": [{"url": NOTE, "valueAnnotation": {"text": remark}} for remark in report.remarks],
        "identifier": _identifiers(source),
        "status": "preliminary",
        "category": [{"coding": [{"system": RADIOLOGY, "code": "RAD", "display": "Radiology"}]}],
        "code": {"coding": [{"system": LOINC, "code": code, "display": display}], "text": display},
        "subject": _subject(source),
        "effectiveDateTime": _date(source.text("StudyDate")),
        "issued": now.isoformat(timespec="seconds"),
        "imagingStudy": [{"type": "ImagingStudy", "identifier": _uid(source.text("StudyInstanceUID"))}],
        "conclusion": report.conclusion,
        "presentedForm": [
            {
                "contentType": "text/plain; charset=utf-8",
                "language": "en",
                "data": base64.b64encode(_attachment(report).encode()).decode(),
                "title": f"{_notice(report)} {origin.software}",
            }
        ],
    }
    return _checked({name: value for name, value in resource.items() if value})


def bundle(reports: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return several resources as one: a Bundle that is a collection."""
    return _checked({"resourceType": "Bundle", "type": "collection", "entry": [{"resource": one} for one in reports]})


def _checked(resource: dict[str, Any]) -> dict[str, Any]:
    """`resource`, once fhir.resources has found it valid; R4B's reports and bundles are R4's."""
    try:
        from fhir.resources.R4B import get_fhir_model_class
    except ImportError as error:
        raise DataError(INSTALL) from error
    get_fhir_model_class(resource["resourceType"]).model_validate(resource)
    return resource


def _views(sources: Sequence[SourceImage]) -> tuple[str, str]:
    """LOINC's code and name for the views of the images; a general one for other views."""
    positions = [source.text("ViewPosition").upper() for source in sources]
    kinds = frozenset("LATERAL" if position in LATERAL else position for position in positions)
    return VIEWS.get(kinds, ONE_VIEW if len(sources) == 1 else SEVERAL_VIEWS)


def _notice(report: DraftReport) -> str:
    return EDITED_NOTICE if report.changes else NOTICE


def _attachment(report: DraftReport) -> str:
    return "\n\n".join([_notice(report), *report.paragraphs, *(["\n".join(report.remarks)] if report.remarks else [])]) + "\n"


def _narrative(report: DraftReport, origin: ReportOrigin) -> str:
    """The report as XHTML: each sentence with its notes in italics, then the notes of the report."""
    parts = [f"<p>{_notice(report)} {escape(origin.software)}</p>"]
    section = None
    for sentence in report.sentences:
        if sentence.section != section:
            section = sentence.section
            parts.append(f"<p><b>{str(section).capitalize()}</b></p>")
        generated = "" if sentence.generated is None else f"As generated: {sentence.generated}"
        notes = "".join(f"<br/><i>{escape(line)}</i>" for line in (generated, sentence.confidence) if line)
        parts.append(f"<p>{escape(sentence.text)}{notes}</p>")
    parts += [f"<p><i>{escape(line)}</i></p>" for line in (report.changes, report.left_out) if line]
    return f'<div xmlns="http://www.w3.org/1999/xhtml">{"".join(parts)}</div>'


def _identifiers(source: SourceImage) -> list[dict[str, Any]]:
    number = source.text("AccessionNumber")
    coding = {"system": "http://terminology.hl7.org/CodeSystem/v2-0203", "code": "ACSN", "display": "Accession ID"}
    return [{"type": {"coding": [coding]}, "value": number}] if number else []


def _subject(source: SourceImage) -> dict[str, Any]:
    number, issuer = source.text("PatientID"), source.text("IssuerOfPatientID")
    if not number:
        return {}
    assigner = {"assigner": {"display": issuer}} if issuer else {}
    return {"type": "Patient", "identifier": {"value": number, **assigner}}


def _uid(uid: str) -> dict[str, str]:
    return {"system": "urn:dicom:uid", "value": f"urn:oid:{uid}"}


def _date(date: str) -> str:
    """A DICOM date, YYYYMMDD, as FHIR's; a time would require a time zone, which the study does not contain."""
    found = re.fullmatch(r"(\d{4})\.?(\d{2})\.?(\d{2})", date)
    return "-".join(found.groups()) if found else ""

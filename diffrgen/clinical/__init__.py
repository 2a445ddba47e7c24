"""Draft reports in the formats of a hospital: DICOM structured reports and FHIR. Research use only, not for diagnosis."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diffrgen.lazy import on_first_use

if TYPE_CHECKING:
    from diffrgen.clinical.draft import DraftReport, DraftSentence
    from diffrgen.clinical.fhir import bundle, diagnostic_report
    from diffrgen.clinical.files import ClinicalFiles
    from diffrgen.clinical.origin import ReportOrigin, run_origin
    from diffrgen.clinical.source import SourceImage, check_patients, check_study, read_source, read_study
    from diffrgen.clinical.structured_report import basic_text_sr

__all__ = [
    "ClinicalFiles",
    "DraftReport",
    "DraftSentence",
    "ReportOrigin",
    "SourceImage",
    "basic_text_sr",
    "bundle",
    "check_patients",
    "check_study",
    "diagnostic_report",
    "read_source",
    "read_study",
    "run_origin",
]

__getattr__ = on_first_use(__name__, __file__)

"""The files that `python -m diffrgen.generate` exports: a folder of structured reports, a file of FHIR."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from diffrgen.clinical.draft import DraftReport
from diffrgen.clinical.fhir import bundle, diagnostic_report
from diffrgen.clinical.origin import ReportOrigin
from diffrgen.clinical.source import SourceImage
from diffrgen.clinical.structured_report import basic_text_sr
from diffrgen.errors import DataError
from diffrgen.staging import check_absent, replace_file


class ClinicalFiles:
    """Writes reports as they are generated; the FHIR file comes last.

    dicom_sr: a new or empty folder; fhir: a new file; each may be None. sources: the images of each study.

    Raises:
        DataError: the folder or the file is there already.
    """

    def __init__(
        self, dicom_sr: Path | None, fhir: Path | None, sources: Sequence[Sequence[SourceImage]], origin: ReportOrigin
    ) -> None:
        if dicom_sr is not None and dicom_sr.exists() and not (dicom_sr.is_dir() and not any(dicom_sr.iterdir())):
            raise DataError(f"{dicom_sr}: needed a new or empty folder, got one that exists; choose another")
        if fhir is not None:
            check_absent(fhir)
        self._dicom_sr, self._fhir, self._sources, self._origin = dicom_sr, fhir, sources, origin
        self._resources: list[dict[str, Any]] = []

    def write(self, position: int, report: DraftReport) -> None:
        """Export the report of the study at `position`; DataError if it cannot be written."""
        sources, now = self._sources[position], datetime.now().astimezone()
        if self._fhir is not None:
            self._resources.append(diagnostic_report(sources, report, self._origin, now=now))
        if self._dicom_sr is None:
            return
        document = basic_text_sr(sources, report, self._origin, now=now)
        # A UID names neither the patient nor the image.
        file = self._dicom_sr / f"{document.SOPInstanceUID}.dcm"
        try:
            self._dicom_sr.mkdir(parents=True, exist_ok=True)
            document.save_as(file, enforce_file_format=True)
        except OSError as error:
            raise DataError(f"{file}: the report cannot be written: {error.strerror}") from error

    def finish(self) -> None:
        """Write the FHIR file: the resource of one report, the Bundle of several; nothing where there is no report."""
        if self._fhir is None or not self._resources:
            return
        content = self._resources[0] if len(self._resources) == 1 else bundle(self._resources)
        try:
            self._fhir.parent.mkdir(parents=True, exist_ok=True)
            replace_file(self._fhir, (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode())
        except OSError as error:
            raise DataError(f"{self._fhir}: the reports cannot be written: {error.strerror}") from error

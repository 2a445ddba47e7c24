"""The origin of a report, as stated in every file."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

MANUFACTURER = "DiffRGenNet"
NOTICE = "Generated draft. Research use only, not for diagnosis."
# DICOM limits the attribute to 64 characters.
EDITED_NOTICE = "Edited generated draft. Research use only, not for diagnosis."
INSTALL = 'clinical files need pydicom and fhir.resources: pip install "diffrgen[clinical]"'


@dataclass(frozen=True)
class ReportOrigin:
    """The software and the run that generated a report.

    version: of the package diffrgen; digest: SHA-256 of the run's weights, 64 hexadecimal digits.
    """

    version: str
    digest: str

    @property
    def software(self) -> str:
        """The software in words."""
        return f"diffrgen {self.version}"

    @property
    def uid(self) -> str:
        """A DICOM UID of this software with these weights: always the same for the same two."""
        number = int.from_bytes(hashlib.sha256(f"{self.software} {self.digest}".encode()).digest()[:16], "big")
        return f"2.25.{number}"


def run_origin(run: str | Path) -> ReportOrigin:
    """Return the origin of reports that this package generates with a run, a folder or a hub name."""
    from diffrgen.pipeline.run_check import weights_digest
    from diffrgen.pipeline.run_folder import RunFolder

    digests = weights_digest(RunFolder.open(run).path)
    # If the weights are in several files, each file has a digest.
    digest = digests if " " not in digests else hashlib.sha256(digests.encode()).hexdigest()
    return ReportOrigin(version("diffrgen"), digest)

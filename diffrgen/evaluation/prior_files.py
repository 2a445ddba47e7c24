"""A patient's earlier study out of the files that a user names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from diffrgen.errors import DataError
from diffrgen.evaluation.prior_study import PriorStudy

REPORT_SUFFIX = ".txt"
# The longest report of MIMIC-CXR has some 10 kB.
MAX_BYTES = 1_000_000


def read_prior(files: Sequence[Path]) -> PriorStudy:
    """Return the earlier study in one or two files: an image, a report (.txt, UTF-8), or one of each.

    Raises DataError for other numbers and for a report that cannot be read; the image is read later.
    """
    reports = [file for file in files if file.suffix.lower() == REPORT_SUFFIX]
    images = [file for file in files if file not in reports]
    if len(reports) > 1 or len(images) > 1:
        raise DataError(
            f"needed an image of the earlier study, its report ({REPORT_SUFFIX}) or both, got {len(images)} images and "
            f"{len(reports)} reports"
        )
    return PriorStudy(images[0] if images else None, _read_report(reports[0]) if reports else None)


def _read_report(file: Path) -> str:
    needed = f"{file}: needed the earlier report as text in UTF-8"
    try:
        size = file.stat().st_size
        if size > MAX_BYTES:
            raise DataError(f"{needed}, got {size} bytes, more than {MAX_BYTES}")
        report = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{needed}, got another encoding or no text") from error
    except OSError as error:
        raise DataError(f"{needed}, but it cannot be read: {error.strerror}") from error
    if not report.strip():
        raise DataError(f"{needed}, got an empty file")
    return report

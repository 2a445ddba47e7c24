"""A patient's prior study, as given by a user together with the image to report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from diffrgen.errors import DataError
from diffrgen.images import ResizedImages

REPORT_SUFFIX = ".txt"
# Maximum size of a report; the longest of MIMIC-CXR has about 10 kB.
MAX_BYTES = 1_000_000


@dataclass(frozen=True)
class PriorStudy:
    """The prior image (a file, a grey image of mode "L", or a decoded image), its report, or both; else DataError."""

    image: Path | Image.Image | ResizedImages | None = None
    report: str | None = None

    def __post_init__(self) -> None:
        if self.image is None and not (self.report or "").strip():
            raise DataError("a prior study needs its image, its report or both, got neither; leave the prior out")


def read_prior(files: Sequence[Path]) -> PriorStudy:
    """Return the prior study in one or two files: an image, a report (.txt, UTF-8), or one of each.

    Raises DataError for other numbers and for a report that cannot be read; the image is read later.
    """
    reports = [file for file in files if file.suffix.lower() == REPORT_SUFFIX]
    images = [file for file in files if file not in reports]
    if len(reports) > 1 or len(images) > 1:
        raise DataError(
            f"needed an image of the prior study, its report ({REPORT_SUFFIX}) or both, got {len(images)} images and "
            f"{len(reports)} reports"
        )
    return PriorStudy(images[0] if images else None, _read_report(reports[0]) if reports else None)


def _read_report(file: Path) -> str:
    needed = f"{file}: needed the prior report as text in UTF-8"
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

"""A patient's earlier study, as a user hands it over beside the image to report."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from diffrgen.errors import DataError


@dataclass(frozen=True)
class PriorStudy:
    """The earlier image (a file, or a grey picture, mode "L"), the earlier report, or both; DataError for neither."""

    image: Path | Image.Image | None = None
    report: str | None = None

    def __post_init__(self) -> None:
        if self.image is None and not (self.report or "").strip():
            raise DataError("a prior study needs its image, its report or both, got neither; leave the prior out")

"""The images of one study, as given by a user."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from diffrgen.errors import DataError
from diffrgen.images import ResizedImages
from diffrgen.images.dicom_study import DicomStudy, dicom_study
from diffrgen.records import MAX_VIEWS, ViewKind

Picture = str | Path | Image.Image | ResizedImages
"""An image file, a grey image (mode "L"), or one that was decoded elsewhere for `Reporter.image_sizes`."""


@dataclass(frozen=True)
class StudyImages:
    """One to four images of a study; views: the kind of each image's view (default: as DICOM tags name it, else unknown).

    Raises DataError for another number of images, and for DICOM files of different patients or studies.
    """

    images: tuple[Picture, ...]
    views: tuple[ViewKind, ...] = ()

    def __post_init__(self) -> None:
        names = ", ".join(str(image) for image in self.images if isinstance(image, str | Path))
        if not 1 <= len(self.images) <= MAX_VIEWS:
            raise DataError(f"needed 1 to {MAX_VIEWS} images of a study, got {len(self.images)}: {names or 'none'}")
        if self.views and len(self.views) != len(self.images):
            raise ValueError(f"expected one view an image, got {len(self.views)} for {len(self.images)} images")
        tags = [dicom_study(Path(image)) if isinstance(image, str | Path) else None for image in self.images]
        for what in ("patient", "study"):
            if len({getattr(tag, what) for tag in tags if tag is not None} - {""}) > 1:
                raise DataError(f"needed images of one {what}, got DICOM files of several: {names}")
        if not self.views:
            object.__setattr__(self, "views", tuple("unknown" if tag is None else tag.view for tag in tags))

    @classmethod
    def of(cls, images: Picture | StudyImages) -> StudyImages:
        """Return a study of a single image, or the study that `images` is."""
        return images if isinstance(images, StudyImages) else cls((images,))

    @property
    def files(self) -> list[Path]:
        """The files of its images; ValueError if one is no file."""
        files = [Path(image) for image in self.images if isinstance(image, str | Path)]
        if len(files) < len(self.images):
            raise ValueError(f"expected a study of files, got {self.name}")
        return files

    @property
    def name(self) -> str:
        """The names of its files, as the user gave them."""
        return ", ".join(str(image) if isinstance(image, str | Path) else "image" for image in self.images)


def studies_of_folder(files: Sequence[Path]) -> list[list[Path]]:
    """Group the images of one folder: DICOM files by their study, all others as one study, in the order of their first."""
    groups: dict[str | None, list[Path]] = {}
    for file in files:
        tags: DicomStudy | None = dicom_study(file)
        groups.setdefault(tags.study if tags is not None and tags.study else None, []).append(file)
    return list(groups.values())

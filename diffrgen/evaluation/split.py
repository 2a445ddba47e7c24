"""The studies that a run is evaluated or calibrated on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from diffrgen.errors import DataError
from diffrgen.model import DiffRGenConfig
from diffrgen.pipeline.data_digest import check_data
from diffrgen.pipeline.options import ImageCacheOptions, LabelerOptions
from diffrgen.pipeline.run_folder import RunFolder
from diffrgen.pipeline.run_settings import RunSettings
from diffrgen.pipeline.source import StudySource, load_source
from diffrgen.records import Split, Study
from diffrgen.staging import may_write


@dataclass(frozen=True)
class SplitChoice:
    """The split that a command names; data and images: None for the run's own."""

    split: Split
    data: str | None
    images: Path | None
    skip_broken: bool
    labeler: LabelerOptions
    decoded: ImageCacheOptions

    @property
    def key(self) -> str:
        """The name that neighbours and scores of the split are kept under."""
        return self.split if self.data is None else f"{self.split}-of-{Path(self.data).stem}"

    @property
    def data_name(self) -> str | None:
        """The name of the data set, None for the run's own."""
        return None if self.data is None else Path(self.data).name


def load_split(
    run: RunFolder, settings: RunSettings, config: DiffRGenConfig, choice: SplitChoice
) -> tuple[StudySource, tuple[Study, ...]]:
    """Return the data, and the studies of the split.

    Raises DataError for unusable data, a split without studies, and data that changed since the run was made.
    """
    data = settings.data_options(config, data=choice.data, images=choice.images)
    less = choice.skip_broken or data.skip_broken
    source = load_source(
        replace(data, skip_broken=less),
        settings.phantom,
        settings.labeler_options(choice.labeler, same_data=choice.data is None),
        cache=choice.decoded,
        resize=settings.image.resize,
        sections=bool(settings.sections),
    )
    studies = source.splits[choice.split]
    if not studies:
        raise DataError(f"{source.splits.source}: needed studies in the split {choice.split!r}, got none")
    if choice.data is None:
        check_data(run.path, source, context=config.context, less=less)
    return source, studies


def check_may_write(folder: Path) -> None:
    """Raise DataError if results could not be written in the end: after minutes or hours."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not may_write(there):
        raise DataError(f"{there}: needed a folder that may be written, for {folder}; choose another --output")

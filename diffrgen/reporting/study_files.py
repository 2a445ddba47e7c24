"""Studies out of the files and folders that a user names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

from diffrgen.errors import DataError
from diffrgen.images import collect_images
from diffrgen.reporting.study_images import StudyImages, studies_of_folder


@dataclass(frozen=True)
class StudyCollection:
    """The studies found, in the order of the names given; faults: why a name or some of its images gave no study."""

    studies: list[StudyImages] = field(default_factory=list)
    faults: dict[Path, DataError] = field(default_factory=dict)


def collect_studies(names: Sequence[str | Path]) -> StudyCollection:
    """Return the studies that `names` select.

    All files that are named are views of one study. A folder is a study of its own, and so is each folder in it that
    holds images; DICOM files of a folder are grouped by their study. What cannot be a study is a fault, named by its
    first image, and the others go on.
    """
    found = StudyCollection()
    files = [name for name in map(Path, names) if not name.is_dir()]
    named = collect_images(files)
    found.faults.update(named.faults)
    groups = [named.files] if named.files else []
    for folder in (name for name in map(Path, names) if name.is_dir()):
        inside = collect_images([folder])
        found.faults.update(inside.faults)
        groups += _groups(inside.files)
    for group in groups:
        try:
            found.studies.append(StudyImages(tuple(group)))
        except DataError as error:
            found.faults[group[0]] = error
    return found


def _groups(files: Sequence[Path]) -> Iterator[list[Path]]:
    """Yield the images of each study of a folder's files, which come folder by folder."""
    for _, inside in groupby(files, key=lambda file: file.parent):
        yield from studies_of_folder(list(inside))

"""Image files out of what a user names on a command line: files, folders and patterns."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from diffrgen.errors import DataError
from diffrgen.images.dicom import START, has_dicom_mark

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".dcm", ".dicom"})


@dataclass(frozen=True)
class Collection:
    """The image files found, each once, in the order of the names given; faults: why a name gave none."""

    files: list[Path] = field(default_factory=list)
    faults: dict[Path, DataError] = field(default_factory=dict)


def collect_images(names: Sequence[str | Path]) -> Collection:
    """Return the files that `names` stand for; what is in them is not looked at.

    A file is taken as it is, of whatever name. A folder gives its PNG, JPG and DICOM files and those of the folders in
    it, sorted; a file without suffix counts as DICOM there if it has the mark. A name that does not exist and holds *, ?
    or [ is a pattern (** for any folders), and gives the files and folders that match.
    """
    found = Collection()
    seen: set[str] = set()
    for name in names:
        files = list(_files(Path(name)))
        if not files:
            found.faults[Path(name)] = DataError(_fault(Path(name)))
        for file in files:
            place = os.path.abspath(file)
            if place not in seen:
                seen.add(place)
                found.files.append(file)
    return found


def _files(name: Path) -> Iterator[Path]:
    if name.is_dir():
        yield from _files_below(name)
    elif os.path.lexists(name):
        yield name
    elif glob.has_magic(str(name)):
        for match in sorted(glob.glob(str(name), recursive=True)):
            yield from _files(Path(match))


def _files_below(folder: Path) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(inner for inner in folders if not inner.startswith("."))
        for name in sorted(names):
            file = Path(parent, name)
            if not name.startswith(".") and file.is_file() and _is_image(file):
                yield file


def _is_image(file: Path) -> bool:
    if file.suffix:
        return file.suffix.lower() in SUFFIXES
    try:
        with file.open("rb") as stream:
            return has_dicom_mark(stream.read(START))
    except OSError:
        return False


def _fault(name: Path) -> str:
    if name.is_dir():
        return f"{name}: expected a folder with PNG, JPG or DICOM files, got one with none"
    if glob.has_magic(str(name)):
        return f"{name}: expected a pattern that matches images, got one that matches nothing"
    return f"expected an image file, got {name}, which does not exist"

"""The folder that a user downloaded into: where its files lie, whatever sub-folders they were put in."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from diffrgen.errors import DataError

# `wget -r` puts PhysioNet's files four folders down: physionet.org/files/mimic-cxr-jpg/2.0.0/.
MAX_DEPTH = 6
PATIENT_GROUP = r"p1\d"
PATIENTS_PROBED = 50


@dataclass(frozen=True, slots=True)
class Archive:
    """The files under `root` by name, and the folders that hold the images' (`patient_roots`), such as MIMIC-CXR's p10, p11."""

    root: Path
    files: Mapping[str, tuple[Path, ...]]
    patient_roots: tuple[Path, ...]

    @classmethod
    def scan(cls, root: Path, *, without: Path, closed: str = PATIENT_GROUP) -> Archive:
        """Look through `root` to a depth of 6 folders; hidden folders and `without` are not entered.

        closed: a pattern of the folders of many images, which are not entered either; default: MIMIC-CXR's p10, p11, ...
        DataError if `root` is no folder or a folder cannot be read.
        """
        if not root.is_dir():
            what = "is a file" if root.exists() else "does not exist"
            raise DataError(f"expected the folder of an archive, got {root}, which {what}")
        files: defaultdict[str, list[Path]] = defaultdict(list)
        patient_roots: list[Path] = []
        folders = [root]
        left_out = without.resolve()
        for _ in range(MAX_DEPTH + 1):
            below = (path for folder in folders for path in _enter(folder, files, patient_roots, closed))
            folders = [path for path in below if path.resolve() != left_out]
        found = {name: tuple(sorted(paths)) for name, paths in files.items()}
        return cls(root, found, tuple(patient_roots))

    def find(self, names: Sequence[str]) -> Path | None:
        """Return the file that has the first of `names` that is there; None without any.

        DataError if that name is there in two folders.
        """
        for name in names:
            paths = self.files.get(name, ())
            if len(paths) > 1:
                raise DataError(
                    f"{self.root}: expected one {name}, got {len(paths)}: {paths[0]}, {paths[1]}; name the folder "
                    "of one version of the archive"
                )
            if paths:
                return paths[0]
        return None

    def need(self, names: Sequence[str], purpose: str) -> Path:
        """Return `find(names)`; DataError with the purpose of the file if there is none."""
        path = self.find(names)
        if path is None:
            there = ", ".join(sorted(self.files)[:8]) or "no file"
            raise DataError(f"{self.root}: needed {' or '.join(names)} ({purpose}), got: {there}")
        return path

    def ending(self, suffix: str) -> tuple[Path, ...]:
        """Return the files whose name ends in `suffix`, sorted by name."""
        names = sorted(name for name in self.files if name.lower().endswith(suffix))
        return tuple(path for name in names for path in self.files[name])

    def patient_root(self, suffix: str) -> Path | None:
        """Return the first patient root whose first patients hold a file ending in `suffix`; None without one."""
        return next((root for root in self.patient_roots if _holds(root, suffix)), None)

    def relative(self, path: Path | None) -> str | None:
        """Return `path` below the archive's folder, with forward slashes."""
        return None if path is None else path.relative_to(self.root).as_posix()


def _enter(folder: Path, files: dict[str, list[Path]], patient_roots: list[Path], closed: str) -> list[Path]:
    """Add the files of `folder` to `files`; return the subfolders to be scanned."""
    below = []
    for entry in _entries(folder):
        if entry.name.startswith("."):
            continue
        if not entry.is_dir():
            files[entry.name].append(folder / entry.name)
        elif not re.fullmatch(closed, entry.name):
            below.append(folder / entry.name)
        elif folder not in patient_roots:
            patient_roots.append(folder)
    return below


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"the folder {folder} cannot be read: {error.strerror}") from error


def _holds(root: Path, suffix: str) -> bool:
    """Return whether one of the first patients under `root`, or one of the patient's studies, has a file ending in `suffix`."""
    patients = (Path(patient) for group in _entries(root) if group.is_dir() for patient in _entries(Path(group)))
    for _, patient in zip(range(PATIENTS_PROBED), patients, strict=False):
        if patient.is_dir() and (any(patient.glob(f"*{suffix}")) or any(patient.glob(f"*/*{suffix}"))):
            return True
    return False

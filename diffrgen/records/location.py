"""The location of a data set's images: paths must stay inside the images folder, and files must exist."""

from __future__ import annotations

import os
from pathlib import Path, PureWindowsPath

from diffrgen.errors import DataError

# Bytes that Linux, macOS and Windows all accept; the rest of 4,096 bytes is for the path of the images folder.
MAX_NAME, MAX_PATH = 255, 3000


def images_folder(annotation: Path, images: Path | None) -> Path:
    """Return the folder of the image paths: `images`, else `images/` beside the annotation, else its folder.

    DataError when `images` is given and is no folder.
    """
    if images is not None:
        if not Path(images).is_dir():
            raise DataError(f"the images folder {images} does not exist or is not a folder")
        return Path(images)
    beside = annotation.parent / "images"
    return beside if beside.is_dir() else annotation.parent


def path_fault(entry: str) -> str | None:
    """Return why `entry` may not be joined to the images folder (absolute, `..`, NUL, empty, too long), or None."""
    if not entry.strip():
        return "an empty image path"
    if "\0" in entry:
        return f"image path {entry!r} contains a NUL character"
    drive = PureWindowsPath(entry).drive if ":" in entry or entry.startswith("\\\\") else ""
    if entry.startswith(("/", "\\")) or drive:
        return f"image path {entry!r} is absolute: paths must be relative to the images folder"
    if ".." in entry and ".." in entry.replace("\\", "/").split("/"):
        return f"image path {entry!r} leaves the images folder ('..')"
    if len(entry) > MAX_NAME // 4 and not _fits(entry):
        return f"image path {entry[:40]!r}... is too long: a name has at most {MAX_NAME} bytes, a path {MAX_PATH}"
    return None


def _fits(entry: str) -> bool:
    encoded = entry.encode()
    return len(encoded) <= MAX_PATH and max(map(len, encoded.split(b"/"))) <= MAX_NAME


class FileListing:
    """Answers whether a file exists under `root`, reading the listing of each folder once."""

    def __init__(self, root: Path) -> None:
        self.root = str(root)
        self._names: dict[str, frozenset[str]] = {}

    def __contains__(self, entry: str) -> bool:
        folder, name = os.path.split(os.path.normpath(entry))
        if folder not in self._names:
            self._names[folder] = self._read(os.path.join(self.root, folder))
        return name in self._names[folder]

    @staticmethod
    def _read(folder: str) -> frozenset[str]:
        try:
            with os.scandir(folder) as entries:
                return frozenset(entry.name for entry in entries if entry.is_file())
        except (FileNotFoundError, NotADirectoryError):
            return frozenset()
        except OSError as error:
            raise DataError(f"the images folder {folder} cannot be read: {error.strerror}") from error

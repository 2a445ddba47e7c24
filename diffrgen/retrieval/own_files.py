"""The approximate FAISS files written on this machine: FAISS opens no others, because forged files can crash it."""

from __future__ import annotations

import warnings
from pathlib import Path

from diffrgen.staging import cache_root, file_digest

FOLDER = "own-indices"


def note_own(path: Path) -> None:
    """Note that this user wrote the FAISS file at `path`: an empty file in the cache, named by the SHA-256 of its bytes."""
    folder = cache_root() / FOLDER
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / file_digest(path)).touch()
    except OSError as error:
        warnings.warn(
            f"{folder} cannot be written ({error.strerror}), so an approximate index is not known as your own when it is opened "
            "again, and is searched exactly; set DIFFRGEN_CACHE to a folder that may be written",
            RuntimeWarning,
            stacklevel=3,
        )


def is_own(digest: str) -> bool:
    """Return whether a file of this SHA-256 was noted."""
    return (cache_root() / FOLDER / digest).is_file()

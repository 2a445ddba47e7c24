"""The service's folder for temporary files: readable by its user alone, gone at the end, at the latest at the next start."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

# The name contains no text of a visitor, so a listing of the parent folder names no patient.
PREFIX = "diffrgen-serve-"


@contextmanager
def private_folder() -> Iterator[Path]:
    """Yield a new folder (mode 0700) that is removed with its content when the block ends.

    A process that was killed cannot remove its folder. The folder is locked while its process lives, so the next caller
    of the same user finds it unlocked and removes it.

    Raises:
        OSError: no folder can be made in the system's folder for temporary files.
    """
    remove_abandoned(Path(tempfile.gettempdir()))
    folder, lock = _new_folder()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def remove_abandoned(parent: Path) -> None:
    """Remove from `parent` the folders of this user whose processes have ended without removing them."""
    for folder in parent.glob(f"{PREFIX}*"):
        # A folder that is gone, a link, or another user's raises OSError or is skipped.
        with suppress(OSError):
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                if os.fstat(lock).st_uid == os.getuid():
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)


def _new_folder() -> tuple[Path, int]:
    """Return a new folder and the open descriptor that keeps it locked."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX))
        try:
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except FileNotFoundError:
            continue
        # Until it is locked, another starting process may consider the folder abandoned.
        with suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if folder.is_dir() and folder.stat().st_ino == os.fstat(lock).st_ino:
                return folder, lock
        os.close(lock)

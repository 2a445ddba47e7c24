"""A run folder while one process trains in it: its lock, and that a refused start leaves no run behind."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from diffrgen.errors import DataError
from diffrgen.lock import Taken, exclusive
from diffrgen.pipeline.data_digest import FILE as DIGESTS
from diffrgen.staging import is_partial

LOCK = ".training.lock"


def is_vacant(path: Path) -> bool:
    """Return whether a run may start at `path`: nothing is there, or a folder with no more than an ended process left."""
    return not path.exists() or (path.is_dir() and all(is_partial(one) or one.name == LOCK for one in path.iterdir()))


@contextmanager
def made_folder(path: Path) -> Iterator[None]:
    """Make the folder `path` where it is missing; where DataError ends the block, remove of what was made here what is empty."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except DataError:
        with suppress(OSError):
            for folder in missing:
                folder.rmdir()
        raise


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of the run folder `path`, as `made_folder` makes it, within the block.

    Raises DataError if another process holds the lock.
    """
    try:
        with made_folder(path), exclusive(path / LOCK):
            yield
    except Taken as holder:
        raise DataError(f"{path}: {holder} trains in this folder; wait for its end, or choose another --output") from holder


@contextmanager
def no_run_if_refused(path: Path, options: str) -> Iterator[None]:
    """Within the block a run starts in the locked folder `path`, whose options are kept in its file `options`.

    Where DataError is raised before anything else has been made, that file and the lock are removed, so that the corrected
    command finds the folder as this one did. A run that was there before stays as it is.
    """
    begun = (path / options).is_file()
    try:
        yield
    except DataError:
        written = {one.name for one in path.iterdir() if not is_partial(one)}
        if not begun and written <= {options, DIGESTS, LOCK}:
            for name in written:
                # Windows does not remove open files, and an old lock file has no effect.
                with suppress(PermissionError):
                    (path / name).unlink()
        raise

"""Locks that are released when their process exits, however it exits."""

from __future__ import annotations

import errno
import os
import socket
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]
    import msvcrt


# Seconds between two attempts on systems that cannot wait for a lock.
PAUSE = 0.2
# Errors of file systems without locks.
WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOTSUP)


class Taken(Exception):
    """Another process holds the lock; the message names the process if it is known."""


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold the lock file `path` within the block, or raise Taken; the file remains, without effect.

    The lock is the process's own: one that it forks does not hold it on. It is not for several threads of one process.
    """
    with path.open("a+", encoding="utf-8") as file:
        try:
            _lock(file)
        except OSError as error:
            file.seek(0)
            raise Taken(file.read(100).strip() or "another process") from error
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield


@contextmanager
def in_turn(path: Path, notice: str) -> Iterator[None]:
    """Hold the lock file `path` within the block; warn with `notice` and wait where a process or thread holds it.

    The folder of `path` is made where it is missing; the file stays. Nobody waits on a file system without locks, or in a
    folder that may not be written, where there is nothing to wait for.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a")
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        yield
        return
    with file:
        try:
            _flock(file, wait=False)
        except (BlockingIOError, PermissionError):
            warnings.warn(notice, stacklevel=3)
            _flock(file, wait=True)
        except OSError as error:
            if error.errno not in WITHOUT_LOCKS:
                raise
        try:
            yield
        finally:
            # Closing the file is not enough if a worker was forked within the block.
            if fcntl is not None:
                with suppress(OSError):
                    fcntl.flock(file, fcntl.LOCK_UN)


def _flock(file: IO[str], *, wait: bool) -> None:
    """Lock `file` for whoever opened it; BlockingIOError or PermissionError if it is taken and this does not wait."""
    if fcntl is not None:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        return
    while True:
        try:
            return _lock(file)
        except PermissionError:
            if not wait:
                raise
            time.sleep(PAUSE)


def _lock(file: IO[str]) -> None:
    if fcntl is not None:
        # Not flock: workers forked from a killed process would keep holding it for a while.
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    else:
        # A byte beyond the content, so that other processes can read who holds the lock.
        file.seek(2**30)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]

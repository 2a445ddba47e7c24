"""A lock that ends with the process that holds it, however that ends."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]
    import msvcrt


class Taken(Exception):
    """Another process holds the lock; the text says which, as far as it said so itself."""


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold the lock file `path` within the block, or raise Taken; the file stays, which means nothing.

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


def _lock(file: IO[str]) -> None:
    if fcntl is not None:
        # Not flock: workers forked from a process that is killed would go on holding it for a while.
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    else:
        # A byte behind all content, so that others may read who holds it.
        file.seek(2**30)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]

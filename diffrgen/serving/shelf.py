"""Uploaded images between their arrival and their report: in memory only, bounded, forgotten when taken."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable

from diffrgen.errors import DataError
from diffrgen.serving.options import UploadLimits

BUSY = "The service is busy with other images; please try again in a minute."


class Shelf:
    """Holds uploads under tokens that nobody can guess; each can be taken once.

    clock: seconds that only grow, by which uploads that nobody takes expire.
    """

    def __init__(self, limits: UploadLimits, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits, self._clock = limits, clock
        self._lock = threading.Lock()
        self._held: dict[str, tuple[float, bytes]] = {}

    def __len__(self) -> int:
        return len(self._held)

    def put(self, content: bytes) -> str:
        """Keep `content` and return its token; DataError where it is too long or the shelf is full."""
        if len(content) > self._limits.max_bytes:
            raise DataError(too_many_bytes(self._limits))
        self.forget_expired()
        token = secrets.token_urlsafe(24)
        with self._lock:
            if len(self._held) >= self._limits.held_images:
                raise DataError(BUSY)
            self._held[token] = (self._clock(), content)
        return token

    def take(self, token: str) -> bytes:
        """Return the upload of `token` and forget it; DataError where there is none."""
        with self._lock:
            held = self._held.pop(token, None)
        if held is None:
            raise DataError("The image is no longer here; please choose it again.")
        return held[1]

    def forget_expired(self) -> None:
        """Forget what has been here for longer than the limit."""
        oldest = self._clock() - self._limits.held_seconds
        with self._lock:
            for token in [token for token, (since, _) in self._held.items() if since < oldest]:
                del self._held[token]


def too_many_bytes(limits: UploadLimits) -> str:
    """Say how large a file may be."""
    return f"The file is too large: at most {limits.max_megabytes} MB are accepted."

"""Uploaded images between their arrival and their report: in memory only, bounded, forgotten when taken."""

from __future__ import annotations

import secrets
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from diffrgen.errors import DataError
from diffrgen.images import ResizedImages
from diffrgen.serving.options import UploadLimits

# Minimum size that an image counts as, so that the number of small images is bounded too.
LEAST_BYTES = 100_000


@dataclass(frozen=True)
class _Held:
    client: str
    since: float
    image: ResizedImages
    size: int


class HeldImages:
    """Holds decoded uploads under unguessable tokens; each can be taken once. Not thread-safe.

    Over `limits.held_bytes` the oldest image of the client that holds most is forgotten, so that no client's images
    keep those of others out. clock: seconds that only grow, by which images that nobody takes expire.
    """

    def __init__(self, limits: UploadLimits, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits, self._clock = limits, clock
        self._held: dict[str, _Held] = {}

    def __len__(self) -> int:
        return len(self._held)

    def put(self, image: ResizedImages, client: str) -> str:
        """Keep `image` of `client` and return its token."""
        self.forget_expired()
        token = secrets.token_urlsafe(24)
        self._held[token] = _Held(client, self._clock(), image, max(LEAST_BYTES, image.pixels))
        while len(self._held) > 1 and sum(held.size for held in self._held.values()) > self._limits.held_bytes:
            sizes: Counter[str] = Counter()
            for held in self._held.values():
                sizes[held.client] += held.size
            ((greediest, _),) = sizes.most_common(1)
            del self._held[next(token for token, held in self._held.items() if held.client == greediest)]
        return token

    def take(self, token: str) -> ResizedImages:
        """Return the image of `token` and forget it; DataError if there is none."""
        held = self._held.pop(token, None)
        if held is None:
            raise DataError("The image is no longer here; please choose it again.")
        return held.image

    def forget_expired(self) -> None:
        """Forget what has been here for longer than the limit."""
        oldest = self._clock() - self._limits.held_seconds
        for token in [token for token, held in self._held.items() if held.since < oldest]:
            del self._held[token]

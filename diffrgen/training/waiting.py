"""The time that training waits for its data."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass
class _Pass:
    waited: float = 0.0
    elapsed: float = 0.0


class BatchTimer:
    """Measures, for each pass over the batches, the seconds spent in waiting for them and the seconds in all."""

    def __init__(self) -> None:
        self._passes: list[_Pass] = []

    def timed(self, batches: Iterable[T]) -> Iterator[T]:
        """Yield `batches`, one pass."""
        current = _Pass()
        self._passes.append(current)
        started = asked = time.perf_counter()
        try:
            for batch in batches:
                current.waited += time.perf_counter() - asked
                yield batch
                asked = time.perf_counter()
        finally:
            current.elapsed = time.perf_counter() - started

    @property
    def last_share(self) -> float:
        """Waiting as a share (0..1) of the last pass."""
        return _share(self._passes[-1:])

    @property
    def share(self) -> float:
        """Waiting as a share (0..1) of all passes."""
        return _share(self._passes)


def _share(passes: list[_Pass]) -> float:
    elapsed = sum(one.elapsed for one in passes)
    return sum(one.waited for one in passes) / elapsed if elapsed else 0.0

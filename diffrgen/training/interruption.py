"""Ctrl-C and the termination signal: training ends after a step with a checkpoint, not in the middle of one."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class TrainingStopped(Exception):
    """Training was told to stop and has saved where it stands; `status` is the exit status that says so."""

    def __init__(self, number: int, message: str) -> None:
        super().__init__(message)
        self.status = 128 + number


class StopRequest:
    """Notes the first SIGINT or SIGTERM as `number` (0: none came); a second Ctrl-C ends the process at once.

    In a thread other than the main one, which gets no signals, nothing is noted.
    """

    def __init__(self) -> None:
        self.number = 0
        self._previous: dict[int, object] = {}
        self._immediate: str | None = None

    @contextmanager
    def immediate(self, message: str) -> Iterator[None]:
        """Within the block, where there is nothing to save, a signal raises TrainingStopped(message) as it comes."""
        self._immediate = message
        try:
            yield
        finally:
            self._immediate = None

    def _note(self, number: int, _: FrameType | None) -> None:
        self.number = number
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        if self._immediate is not None:
            raise TrainingStopped(number, self._immediate)

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

"""Signals that end training: it ends after a step with a checkpoint, not in the middle of one."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType

from diffrgen.workers import GROUP_SIGNALS

HANGUP = getattr(signal, "SIGHUP", None)


class TrainingStopped(Exception):
    """Training was stopped by a signal and has saved its state; `status` is the corresponding exit status."""

    def __init__(self, number: int, message: str) -> None:
        super().__init__(message)
        self.status = 128 + number


class StopRequest:
    """Notes the first SIGINT, SIGTERM or SIGHUP as `number` (0: none came); a second Ctrl-C ends the process at once.

    SIGHUP comes when the terminal is closed; where it is ignored, as under nohup, it stays ignored. In a thread other than
    the main one, which gets no signals, nothing is noted. Entered again inside of itself, it stays as it is.
    """

    def __init__(self) -> None:
        self.number = 0
        self._previous: dict[int, object] = {}
        self._immediate: str | None = None
        self._entered = 0
        self._terminals: list[int] = []

    @contextmanager
    def immediate(self, message: str) -> Iterator[None]:
        """Within the block, where there is nothing to save, a signal raises TrainingStopped(message) as it comes."""
        with self._mode(message):
            yield

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Within a part of an `immediate` block a signal is only noted; it raises when that part is done."""
        with self._mode(None):
            yield
        if self.number and self._immediate is not None:
            raise TrainingStopped(self.number, self._immediate)

    @contextmanager
    def _mode(self, message: str | None) -> Iterator[None]:
        before, self._immediate = self._immediate, message
        try:
            yield
        finally:
            self._immediate = before

    def _note(self, number: int, _: FrameType | None) -> None:
        self.number = number
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        if number == HANGUP:
            self._leave_terminal()
        if self._immediate is not None:
            raise TrainingStopped(number, self._immediate)

    def _leave_terminal(self) -> None:
        """Write nowhere from now on: each word to a terminal that is gone would be an error."""
        nowhere = os.open(os.devnull, os.O_RDWR)
        for terminal in self._terminals:
            os.dup2(nowhere, terminal)
        os.close(nowhere)

    def __enter__(self) -> StopRequest:
        self._entered += 1
        if self._entered == 1 and threading.current_thread() is threading.main_thread():
            numbers = [n for n in GROUP_SIGNALS if n != HANGUP or signal.getsignal(n) is not signal.SIG_IGN]
            self._terminals = [descriptor for descriptor in (1, 2) if os.isatty(descriptor)]
            self._previous = {number: signal.signal(number, self._note) for number in numbers}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._entered -= 1
        if self._entered:
            return
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

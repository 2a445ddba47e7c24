"""Ends the service on SIGINT, SIGTERM and SIGHUP, whatever its threads are doing."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Ending:
    """The signal handler: raises SystemExit while the service starts, and calls `stop` once that is set.

    status: the exit status, as a shell counts it: 128 + the signal's number, 0 while none has come.
    """

    def __init__(self) -> None:
        self.stop: Callable[[], None] | None = None
        self.status = 0

    def receive(self, number: int, frame: FrameType | None = None) -> None:
        """Handle a signal; later ones do not disturb the end that the first began."""
        if self.status:
            return
        self.status = 128 + number
        if self.stop is None:
            raise SystemExit(self.status)
        self.stop()

    def exit(self) -> None:
        """End the process now: a thread that still generates a report can be neither interrupted nor waited for."""
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(self.status)


@contextmanager
def ended_by_signals() -> Iterator[Ending]:
    """Handle the signals of `ENDING` by the yielded object within the block; SIGHUP stays ignored where nohup ignores it."""
    ending = Ending()
    numbers = [n for n in ENDING if n != signal.SIGHUP or signal.getsignal(n) is not signal.SIG_IGN]
    before = {number: signal.signal(number, ending.receive) for number in numbers}
    try:
        yield ending
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

"""Worker processes: they leave signals to the main process, and exit with it."""

from __future__ import annotations

import atexit
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from multiprocessing.context import BaseContext
from typing import Any

# Signals that a terminal, a shell or a scheduler sends to every process of a group; Windows has no SIGHUP.
GROUP_SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


def leave_signals_to_the_main_process(_: int = 0) -> None:
    """Have a worker read on when its process group gets Ctrl-C: training then still takes its last step.

    A worker exits when its main process requests it, or is gone (`end_workers_at_exit`).
    """
    for number in GROUP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, GROUP_SIGNALS)


def worker_options(workers: int) -> dict[str, Any]:
    """Return the arguments of a DataLoader for `workers` processes that leave signals to the main process, 0: none."""
    if not workers:
        return {"num_workers": 0}
    end_workers_at_exit()
    return {
        "num_workers": workers,
        "worker_init_fn": leave_signals_to_the_main_process,
        "multiprocessing_context": _context(),
    }


def _context() -> BaseContext | None:
    """Return how workers are started: where they are forked, with the signals of a group held back until they ignore them.

    Otherwise a worker that is just starting would die of a signal to its group, and its loader end with a traceback.
    """
    if multiprocessing.get_start_method() != "fork":
        return None
    fork = multiprocessing.get_context("fork")

    class Worker(fork.Process):  # type: ignore[name-defined, misc]
        def start(self) -> None:
            with _held_signals():
                super().start()

    class Context(type(fork)):  # type: ignore[misc]
        Process = Worker

    return Context()


@contextmanager
def _held_signals() -> Iterator[None]:
    """Have signals of GROUP_SIGNALS wait until the block ends; a process forked within keeps holding them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, GROUP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@cache
def end_workers_at_exit() -> None:
    """Have the workers that are left when Python exits killed: it would send them a signal that they leave to others, and
    wait for them without end. They are left where something still holds their loader, as after a training that was stopped.
    """
    atexit.register(_kill_daemons)


def end_with_the_main_process() -> None:
    """Have this worker of a pool end at once when its main process is gone, killed by SIGKILL for example.

    A pool's worker otherwise finishes the work that it was given, and may then wait for more without end.
    """
    leave_signals_to_the_main_process()
    main = multiprocessing.parent_process()
    if main is not None:
        threading.Thread(target=_exit_after, args=(main,), daemon=True).start()


def _exit_after(main: multiprocessing.process.BaseProcess) -> None:
    main.join()
    os._exit(1)


def _kill_daemons() -> None:
    workers = [process for process in multiprocessing.active_children() if process.daemon]
    if workers and hasattr(signal, "SIGCHLD"):
        # torch's handler would otherwise raise, in any code that runs later, because a loader's worker was killed.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for process in workers:
        process.kill()

"""Runs a function in two processes of one group, forked after the imports, which take longer than the work."""

from __future__ import annotations

import os
import signal
import socket
import traceback
from collections.abc import Callable

PROCESSES = 2
PATIENCE = 200


def in_two_processes(work: Callable[[int], int]) -> list[int]:
    """Call `work` with the rank in each of two processes, in the environment that torchrun makes; return the statuses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    children = [_fork(work, rank, port) for rank in range(PROCESSES)]
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def _fork(work: Callable[[int], int], rank: int, port: int) -> int:
    child = os.fork()
    if child:
        return child
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": PROCESSES, "LOCAL_WORLD_SIZE": PROCESSES}
    os.environ |= {name: str(value) for name, value in place.items()}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "ACCELERATE_USE_CPU": "true"}
    # Should one wait for another that is gone, the signal ends it.
    signal.alarm(PATIENCE)
    status = 1
    try:
        status = work(rank)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)

"""Commands on a machine that is lent for minutes: each has its time, all are logged, none stops the next."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cases import ROOT

LEAST_SECONDS = 5.0  # a command is not started where less time is left
TAIL, SHOWN = 4000, 1500  # characters kept of what a command printed, and shown where it failed


@dataclass(frozen=True)
class Outcome:
    """The outcome of a command: "ok", "exit N", "out of time" or "not started"; the end of its output."""

    step: str
    command: str
    status: str
    seconds: float
    tail: str

    @property
    def ok(self) -> bool:
        """It ended well."""
        return self.status == "ok"


class Session:
    """Runs commands until the minutes are over; everything they print is added to `log`."""

    def __init__(self, minutes: float, log: Path) -> None:
        self.deadline = time.monotonic() + 60 * minutes
        self.log = log
        self.outcomes: list[Outcome] = []
        log.parent.mkdir(parents=True, exist_ok=True)
        log.touch()

    @property
    def left(self) -> float:
        """Seconds that are left."""
        return self.deadline - time.monotonic()

    def run(
        self, step: str, command: Sequence[str], minutes: float, environment: Mapping[str, str] | None = None
    ) -> Outcome:
        """Run a command of this Python for at most `minutes`, and not past the session's end."""
        seconds, status = min(60 * minutes, self.left), "not started"
        started = time.monotonic()
        start = self.log.stat().st_size
        if seconds > LEAST_SECONDS:
            status = self._finish(command, seconds, environment or {})
        with self.log.open("rb") as log:
            log.seek(start)
            tail = log.read().decode(errors="replace")[-TAIL:]
        outcome = Outcome(step, " ".join(command), status, time.monotonic() - started, tail)
        self.outcomes.append(outcome)
        print(f"{outcome.step}: {outcome.status}, {outcome.seconds:.0f} s: {outcome.command}", flush=True)
        if not outcome.ok:
            print(tail[-SHOWN:], flush=True)
        return outcome

    def _finish(self, command: Sequence[str], seconds: float, changes: Mapping[str, str]) -> str:
        paths = [*operator_sources(), str(ROOT), os.environ.get("PYTHONPATH", "")]
        if importlib.util.find_spec("annotated_types") is None:
            paths.append(str(ROOT / "bench" / "stand_in"))
        paths_joined = os.pathsep.join(filter(None, paths))
        environment = {**os.environ, "PYTHONPATH": paths_joined, "PYTHONUNBUFFERED": "1", **changes}
        with self.log.open("a") as log:
            log.write(f"\n$ python {' '.join(command)}\n")
            log.flush()
            process = subprocess.Popen(
                [sys.executable, *command],
                cwd=ROOT,
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                code = process.wait(seconds)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)  # its compilers too
                process.wait()
                return "out of time"
        return "ok" if code == 0 else f"exit {code}"


def operator_sources() -> list[str]:
    """The operator's sources, so that nothing has to be installed; none where only the installed one has its extension."""
    installed = importlib.util.find_spec("diffrgen_kernels")
    elsewhere = installed is not None and installed.origin is not None and is_built(Path(installed.origin).parent)
    sources = ROOT / "kernels"
    return [] if elsewhere and not is_built(sources / "diffrgen_kernels") else [str(sources)]


def is_built(package: Path) -> bool:
    """Whether the C++ extension lies in the folder of the package."""
    return any(package.glob("_native*.so"))

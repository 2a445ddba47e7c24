"""One part of the measurements on a GPU: its file, what that already has, and the steps that add to it."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from machine import describe
from result import write_brief
from session import Session

SHOWN = 1500  # characters kept of what a step printed that did not end well


@dataclass(frozen=True)
class Step:
    """A command of this Python, and what it may take.

    script: of bench/, whose --output is taken up. resumed: it can go on from that file with --resume. environment: what
    it needs beside the present one.
    """

    name: str
    command: tuple[str, ...]
    minutes: float
    script: bool = True
    resumed: bool = False
    environment: dict[str, str] = field(default_factory=dict)


class Visit:
    """A part's results in `path`: written after every step, and read again by the next call of that part."""

    def __init__(self, path: Path, session: Session, device: str, dtype: str) -> None:
        """Raises ValueError where the file is of another commit or device."""
        self.path, self.session = path, session
        self.machine = describe(device)
        own = {"commit": self.machine["commit"], "device": device, "dtype": dtype}
        self.found: dict[str, Any] = {**own, "machine": self.machine, "steps": {}, "rows": [], "missing": [], "results": {}}
        if path.exists():
            kept = json.loads(path.read_text(encoding="utf-8"))
            for name, value in own.items():
                if kept.get(name) != value:
                    raise ValueError(
                        f"{path}: expected results of {name} {value}, found those of {kept.get(name)}: move the file away "
                        "or choose another --output"
                    )
            self.found = kept

    def status(self, step: Step) -> str | None:
        """The last outcome of a step; None if it was never tried."""
        kept = self.found["steps"].get(step.name)
        return None if kept is None else kept["status"]

    def ordered(self, steps: Sequence[Step]) -> list[Step]:
        """The remaining steps: those never tried, then those that failed."""
        new = [step for step in steps if self.status(step) is None]
        return new + [step for step in steps if self.status(step) not in (None, "ok")]

    def take(self, step: Step) -> None:
        """Run a step and write what it found, even if it ended badly."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "result.json"
            command = list(step.command)
            if step.script:
                command = [f"bench/{command[0]}", *command[1:], "--output", str(path)]
            if step.resumed and step.name in self.found["results"]:
                path.write_text(json.dumps(self.found["results"][step.name]), encoding="utf-8")
                command.append("--resume")
            outcome = self.session.run(step.name, command, step.minutes, step.environment)
            if path.exists():
                self._take_up(step, json.loads(path.read_text(encoding="utf-8")))
        kept: dict[str, Any] = {"status": outcome.status, "seconds": outcome.seconds, "command": outcome.command}
        if not outcome.ok:
            kept["tail"] = outcome.tail[-SHOWN:]
        self.found["steps"][step.name] = kept
        write_brief(self.path, self.found)

    def _take_up(self, step: Step, result: dict[str, Any]) -> None:
        """Rows of a comparison go to those of the part, anything else under the step's name."""
        if "rows" not in result:
            self.found["results"][step.name] = {name: value for name, value in result.items() if name != "machine"}
            return
        self.found["results"][step.name] = {"limits": result["limits"]}
        for name in ("rows", "missing"):
            new = {_place(row): row for row in result[name]}
            self.found[name] = [row for row in self.found[name] if _place(row) not in new] + list(new.values())


def _place(row: dict[str, Any]) -> tuple[str, str, str]:
    return row["case"], row["direction"], row["contender"]

"""`python bench/gpu.py`: install, check, time, tune, train and generate on a GPU in one go, where its minutes are scarce.

A step that fails or runs out of time is written down and the next begins. Writes results.json and log.txt, the
comparison as benchmark.json and, after the tuning, tuned.json (as `bench/compare.py` does), their plots, and the
configurations that the tuning found.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cases import DIRECTIONS, ROOT, select_cases
from machine import describe
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from session import Session

OURS = ("native", "triton")
TUNED = "DIFFRGEN_TUNED"  # names the file that the sweep writes and the Triton backend reads
# patches -> what the better of this project's backends is to reach: milliseconds, and times the speed of a contender in
# both directions. NVIDIA H200, bf16, batch 16, 8 heads, 4 masks, D = 64, medians of graph replays
GOALS: dict[int, dict[str, dict[str, float]]] = {
    49: {"ms": {"forward": 0.010, "forward_backward": 0.035}, "times": {"eager": 5.0, "compiled": 2.5}},
    1024: {
        "ms": {"forward": 0.25, "forward_backward": 0.9},
        "times": {"eager": 4.0, "compiled": 2.5, "flex": 1.5},
    },
    4096: {"ms": {"forward": 2.6, "forward_backward": 9.0}, "times": {"compiled": 4.5, "sdpa": 2.5}},
}


@dataclass
class Visit:
    """One visit to a machine: how it is used, and what came of it so far."""

    device: str
    quick: bool
    seconds: float
    output: Path
    session: Session
    results: dict[str, Any] = field(default_factory=dict)

    def save(self) -> None:
        """Write all results so far."""
        outcomes = [asdict(outcome) for outcome in self.session.outcomes]
        text = json.dumps({**self.results, "commands": outcomes}, indent=1)
        (self.output / "results.json").write_text(text + "\n", encoding="utf-8")

    def measure(self, step: str, command: Sequence[str], minutes: float) -> Any:
        """Run a script of bench/ and return the JSON that it wrote, even if it ended badly; None if it wrote none."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "result.json"
            self.session.run(step, [f"bench/{command[0]}", *command[1:], "--output", str(path)], minutes)
            return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def install(visit: Visit) -> None:
    """Build the extension in place; which backends then run."""
    command = ["-m", "pip", "install", "--no-build-isolation", "--no-deps", "-v", "-e", "."]
    visit.session.run("install", command, 4)


def backends(visit: Visit) -> None:
    """The machine, and each backend's "ok" or why it cannot run."""
    visit.results["machine"] = describe(visit.device)
    code = f"from diffrgen_kernels import available_backends as a; print(a({visit.device!r}))"
    visit.results["backends"] = visit.session.run("backends", ["-c", code], 1).tail.splitlines()[-1]


def parity(visit: Visit) -> None:
    """The parity table on this device."""
    words = "test_masks_by_hand" if visit.quick else visit.device
    workers = ["-n", "8"] if importlib.util.find_spec("xdist") and not visit.quick else []
    command = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_kernels.py", "-k", words, *workers]
    outcome = visit.session.run("parity", command, 5)
    visit.results["parity"] = outcome.tail.strip().splitlines()[-1:]


def errors(visit: Visit) -> None:
    """The worst errors over the table, float32, bf16, fp16."""
    cases = ["--cases", "2"] if visit.quick else []
    visit.results["errors"] = visit.measure("errors", ["errors.py", "--device", visit.device, *cases], 3)


def benchmark(visit: Visit) -> None:
    """All contenders on all cases, a process a case."""
    compare(visit, "benchmark")


def compare(visit: Visit, step: str) -> None:
    """Write and plot a comparison as `step`.json and .png."""
    merged: dict[str, Any] = {}
    command = ["compare.py", "--device", visit.device, "--seconds", str(visit.seconds)]
    # a CPU takes longest to compile; a quick look leaves that out
    command += ["--quick", "--contenders", "eager", "native", "triton", "sdpa"] if visit.quick else []
    for case in select_cases(visit.device, None, quick=visit.quick):
        found = visit.measure(step, [*command, "--cases", case.name], 3)
        for name in ("rows", "missing") if found and merged else ():
            merged[name] += found[name]
        merged = merged or found or {}
    visit.results[step] = merged
    if merged:
        path = visit.output / f"{step}.json"
        path.write_text(json.dumps(merged, indent=1) + "\n", encoding="utf-8")
        visit.session.run(f"plot {step}", ["bench/plot.py", str(path), str(path.with_suffix(".png"))], 1)


def tune(visit: Visit) -> None:
    """Sweep the Triton kernels' block sizes, then compare again."""
    if visit.device == "cpu" or not (ROOT / "kernels" / "diffrgen_kernels" / "tune.py").exists():
        visit.results["tune"] = "no GPU, or no module diffrgen_kernels.tune"
        return
    file = visit.output.resolve() / "triton_configs.json"
    os.environ[TUNED] = str(file)
    visit.results["tune"] = visit.session.run("tune", ["-m", "diffrgen_kernels.tune"], 5).tail
    # written kernel by kernel, so that a sweep which ran out of time has found something too
    if file.exists():
        compare(visit, "tuned")


def training(visit: Visit) -> None:
    """The aggregation module, training steps on random batches, then the command on a phantom; both operators."""
    where = ["--device", visit.device]
    if visit.quick:
        visit.results["aggregation"] = visit.measure("aggregation", ["aggregation.py", *where, "--quick"], 2)
        visit.results["training_synthetic"] = visit.measure(
            "training", ["training.py", "synthetic", *where, "--quick"], 3
        )
        return
    visit.results["aggregation"] = visit.measure("aggregation", ["aggregation.py", *where, "--seconds", "5"], 2)
    for setting, ways in (("paper", []), ("tokens_512px", ["--ways", "fused", "reference"])):
        command = ["training.py", "synthetic", *where, "--settings", setting, *ways]
        visit.results[f"training_{setting}"] = visit.measure(f"training {setting}", command, 4)
    visit.results["training_command"] = visit.measure("training command", ["training.py", "command"], 5)


def generation(visit: Visit) -> None:
    """Reports a second, beside `transformers`' own model."""
    quick = ["--quick", "--seconds", "1"] if visit.quick else ["--seconds", "20"]
    visit.results["generation"] = visit.measure("generation", ["generation.py", "--device", visit.device, *quick], 4)


STEPS: dict[str, Callable[[Visit], None]] = {
    step.__name__: step for step in (install, backends, parity, errors, benchmark, tune, training, generation)
}


@dataclass(frozen=True)
class Verdict:
    """A goal, what was measured (None: nothing) and whether that meets it."""

    case: str
    quantity: str
    goal: float
    measured: float | None
    met: bool


def judge(rows: Sequence[dict[str, Any]]) -> list[Verdict]:
    """Hold the rows of a comparison against GOALS."""
    seconds = {(row["case"], row["direction"], row["contender"]): row["seconds"]["median"] for row in rows}
    verdicts = []
    for case in select_cases("cuda", None, quick=False):
        goals = GOALS.get(case.grid[0] * case.grid[1], {"ms": {}, "times": {}})
        for direction, limit in goals["ms"].items():
            own = min((seconds[key] for name in OURS if (key := (case.name, direction, name)) in seconds), default=None)
            found = None if own is None else 1e3 * own
            verdicts.append(Verdict(case.name, f"{direction}, ms", limit, found, found is not None and found <= limit))
            for other, factor in goals["times"].items():
                theirs = seconds.get((case.name, direction, other))
                ratio = None if own is None or theirs is None else theirs / own
                met = ratio is not None and ratio >= factor
                verdicts.append(Verdict(case.name, f"{direction}, times {other}", factor, ratio, met))
    return verdicts


def print_goals(verdicts: Sequence[Verdict], console: Console) -> None:
    """The table of goals, a line each."""
    table = Table(title="goals", box=SIMPLE_HEAD, title_justify="left")
    for column in ("case", "quantity", "goal", "measured", "met"):
        table.add_column(column, no_wrap=True)
    for verdict in verdicts:
        measured = "-" if verdict.measured is None else f"{verdict.measured:.3g}"
        met = "-" if verdict.measured is None else "yes" if verdict.met else "NO"
        table.add_row(verdict.case, verdict.quantity, f"{verdict.goal:g}", measured, met)
    console.print(table)


def print_times(rows: Sequence[dict[str, Any]], console: Console) -> None:
    """Median microseconds of each contender, a line a case and direction."""
    names = list(dict.fromkeys(row["contender"] for row in rows))
    table = Table(title="median us", box=SIMPLE_HEAD, title_justify="left")
    for column in ("case", "direction", *names):
        table.add_column(column, no_wrap=True)
    seconds = {(row["case"], row["direction"], row["contender"]): row["seconds"]["median"] for row in rows}
    for case in dict.fromkeys(row["case"] for row in rows):
        for direction in DIRECTIONS:
            times = [seconds.get((case, direction, name)) for name in names]
            table.add_row(case, direction, *("-" if t is None else f"{1e6 * t:.1f}" for t in times))
    console.print(table)


def main(arguments: Sequence[str]) -> int:
    """Take the steps; the status is 0 if every command ended well."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda", help="(default: %(default)s)")
    parser.add_argument("--minutes", type=float, default=9.5, help="of the whole (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=5.0, help="of timing a case and direction (%(default)s)")
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=list(STEPS))
    parser.add_argument("--output", type=Path, default=ROOT / "bench" / "results" / "gpu")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to try the script itself")
    options = parser.parse_args(arguments)
    session = Session(options.minutes, options.output / "log.txt")
    os.environ[TUNED] = ""  # until the tuning, the configurations that the package comes with
    visit = Visit(options.device, options.quick, options.seconds, options.output, session)
    for name in options.steps:
        try:
            STEPS[name](visit)
        except Exception:  # the next step may still work
            visit.results[f"{name}_failure"] = traceback.format_exc()
            print(visit.results[f"{name}_failure"], file=sys.stderr)
        visit.save()
    rows = (visit.results.get("tuned") or visit.results.get("benchmark") or {}).get("rows", [])
    verdicts = judge(rows)
    visit.results["goals"] = [asdict(verdict) for verdict in verdicts]
    visit.save()
    console = Console(width=150, soft_wrap=True)
    print_times(rows, console)
    print_goals(verdicts, console)
    return int(not all(outcome.ok for outcome in session.outcomes))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""The operator's goals on a GPU, and the measured times relative to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cases import DIRECTIONS, Direction, select_cases
from diffrgen_kernels.inspect import table

OURS = ("native", "triton")
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


@dataclass(frozen=True)
class Verdict:
    """A goal, what was measured (None: nothing) and whether that meets it."""

    case: str
    quantity: str
    goal: float
    measured: float | None
    met: bool


def medians(rows: Sequence[dict[str, Any]]) -> dict[tuple[str, str, str], float]:
    """Seconds by case, direction and contender."""
    return {(row["case"], row["direction"], row["contender"]): row["seconds"]["median"] for row in rows}


def judge(rows: Sequence[dict[str, Any]]) -> list[Verdict]:
    """Hold the rows of a comparison against GOALS."""
    seconds = medians(rows)
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


def farthest(rows: Sequence[dict[str, Any]]) -> tuple[int, Direction] | None:
    """The side of the patch grid and the direction whose Triton time is the largest multiple of its goal; None without any."""
    seconds = medians(rows)
    found: dict[tuple[int, Direction], float] = {}
    for case in select_cases("cuda", None, quick=False):
        limits = GOALS.get(case.grid[0] * case.grid[1], {"ms": {}})["ms"]
        for direction in DIRECTIONS:
            if direction in limits and (key := (case.name, direction, "triton")) in seconds:
                found[case.grid[0], direction] = 1e3 * seconds[key] / limits[direction]
    return max(found, key=lambda each: found[each], default=None)


def print_goals(verdicts: Sequence[Verdict]) -> None:
    """The table of goals of which anything was measured, a line each."""
    rows = [
        {
            "case": verdict.case,
            "quantity": verdict.quantity,
            "goal": f"{verdict.goal:g}",
            "measured": f"{verdict.measured:.3g}",
            "met": "yes" if verdict.met else "NO",
        }
        for verdict in verdicts
        if verdict.measured is not None
    ]
    if rows:
        print(f"goals\n\n{table(rows)}\n")


def print_times(rows: Sequence[dict[str, Any]]) -> None:
    """Median microseconds of each contender, a line a case and direction."""
    names = list(dict.fromkeys(row["contender"] for row in rows))
    lines: dict[tuple[str, str], dict[str, str]] = {}
    for (case, direction, name), seconds in medians(rows).items():
        line = lines.setdefault((case, direction), {"case": case, "direction": direction, **dict.fromkeys(names, "-")})
        line[name] = f"{1e6 * seconds:.1f}"
    if lines:
        print(f"median us\n\n{table(list(lines.values()))}\n")

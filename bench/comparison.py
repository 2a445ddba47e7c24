"""One case, all contenders: checked, timed in turns, and compared with the machine's limits."""

from __future__ import annotations

import statistics
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from cases import Case, Direction, work
from contenders import Absent
from limits import Limits
from stage import Entrant, Stage
from timing import Sampler, Spread, interleave, make_sampler

BASELINES = ("eager", "compiled")
TRACE = 2000  # characters kept of what broke a contender


@dataclass(frozen=True)
class Rate:
    """The rates of a call's median time for the work of its case.

    percent_gemm, percent_copy: of the measured limits; a kernel that leaves out masked patches may pass 100 % of the
    product's.
    """

    dense_gflop: float
    gflop_per_second: float
    percent_gemm: float
    compulsory_mb: float
    gb_per_second: float
    percent_copy: float

    @classmethod
    def of(cls, case: Case, direction: Direction, dtype: torch.dtype, seconds: float, limits: Limits) -> Rate:
        """The rates of a call that took `seconds`."""
        cost = work(case, direction, dtype)
        flops, moved = cost.flops / seconds, cost.moved / seconds
        return cls(
            dense_gflop=cost.flops / 1e9,
            gflop_per_second=flops / 1e9,
            percent_gemm=100 * flops / limits.flops,
            compulsory_mb=cost.moved / 1e6,
            gb_per_second=moved / 1e9,
            percent_copy=100 * moved / limits.bytes,
        )


@dataclass(frozen=True)
class Row:
    """A contender's result on a case.

    seconds: of a call. speedup: time of the faster of eager and compiled over this one's, round by round. saved_mb:
    kept for backward beside inputs and output. peak_mb: needed at once beside the inputs.
    """

    case: str
    direction: Direction
    contender: str
    windowed: bool
    seconds: Spread
    speedup: Spread | None
    rate: Rate
    saved_mb: float | None
    peak_mb: float | None
    errors: dict[str, float]
    timed_by: str
    note: str


@dataclass(frozen=True)
class Missing:
    """A contender without a result, and why; `trace` where it broke."""

    case: str
    direction: Direction
    contender: str
    reason: str
    trace: str = ""


class Comparison:
    """The contenders of one case; `rows` and `missing` grow with `run`."""

    def __init__(self, case: Case, device: str, dtype: torch.dtype, clock: str = "clock") -> None:
        self.stage, self.clock = Stage(case, device, dtype), clock
        self.rows: list[Row] = []
        self.missing: list[Missing] = []

    def run(self, names: Sequence[str], direction: Direction, seconds: float, limits: Limits) -> None:
        """Check the contenders, then time them in turns for about `seconds`."""
        entrants: dict[str, Entrant] = {}
        samplers: dict[str, Sampler] = {}

        def enter(name: str) -> None:
            entrants[name] = self.stage.enter(name, direction)
            samplers[name] = make_sampler(self.stage.steps(entrants[name], direction), self.stage.device, self.clock)

        for name in names:
            self._guard(name, direction, partial(enter, name))
        rounds = interleave(samplers, seconds)
        baseline = min((name for name in BASELINES if name in rounds), key=lambda n: _median(rounds[n]), default=None)
        for name, times in rounds.items():
            speedup = None if baseline is None else _speedup(rounds[baseline], times)
            self.rows.append(self._row(name, direction, entrants[name], times, speedup, samplers[name].how, limits))

    def _guard(self, name: str, direction: Direction, action: Callable[[], None]) -> None:
        """Do it, or write down why it cannot be done: one contender's failure leaves the others their times."""
        reason = trace = ""
        try:
            action()
            return
        except Absent as absent:
            reason = str(absent)
        except Exception as error:  # compilers and drivers raise what they like
            lines = str(error).strip().splitlines()
            reason, trace = f"{type(error).__name__}: {lines[0] if lines else ''}", traceback.format_exc()[-TRACE:]
        self.missing.append(Missing(self.stage.case.name, direction, name, reason, trace))
        if self.stage.device == "cuda":
            torch.cuda.empty_cache()

    def _row(
        self,
        name: str,
        direction: Direction,
        entrant: Entrant,
        rounds: list[list[float]],
        speedup: Spread | None,
        timed_by: str,
        limits: Limits,
    ) -> Row:
        seconds, case = Spread.of(_flat(rounds)), self.stage.case
        return Row(
            case=case.name,
            direction=direction,
            contender=name,
            windowed=entrant.contender.windowed,
            seconds=seconds,
            speedup=speedup,
            rate=Rate.of(case, direction, self.stage.dtype, seconds.median, limits),
            saved_mb=self.stage.saved_mb(entrant, direction),
            peak_mb=self.stage.peak_mb(self.stage.steps(entrant, direction)[0]),
            errors=entrant.errors,
            timed_by=timed_by,
            note=entrant.contender.note,
        )


def _flat(rounds: list[list[float]]) -> list[float]:
    return [seconds for times in rounds for seconds in times]


def _median(rounds: list[list[float]]) -> float:
    return statistics.median(_flat(rounds))


def _speedup(baseline: list[list[float]], own: list[list[float]]) -> Spread:
    pairs = zip(baseline, own, strict=True)
    return Spread.of([statistics.median(base) / statistics.median(times) for base, times in pairs])

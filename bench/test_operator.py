"""Throughput of the operator: `pytest --benchmark-only`. Every contender is checked before it is timed.

Beside its time, a row says (extra_info) what arithmetic and bytes it stands for, what that is of the machine's measured
limits, and what memory it takes. `bench/compare.py` times the contenders in turns, which is the fairer comparison.
"""

from __future__ import annotations

import functools
import itertools
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict

import pytest
import torch
from cases import DIRECTIONS, DTYPES, Case, Direction, work
from comparison import Rate
from contenders import CONTENDERS, Absent
from inputs import Step
from kernel_cases import BENCH_CASES
from limits import measured_limits
from pytest_benchmark.fixture import BenchmarkFixture
from stage import Stage
from timing import Clock, Replay, make_sampler

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
DTYPE = DTYPES[DEVICE]
SECONDS = 0.5  # a row repeats its call for about so long
ONCE = 1e11  # a call of more dense FLOP than this is timed once on a CPU
MAX_ROUNDS = 50

# the cases come one after the other, so that one at a time is in memory
stage = functools.lru_cache(maxsize=1)(Stage)


def finished() -> float:
    """The clock once all work is done."""
    if DEVICE == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


@contextmanager
def repeated(steps: list[Step]) -> Iterator[tuple[Step, int]]:
    """A call that can be repeated, and the number of calls to a round."""
    sampler = make_sampler(steps, DEVICE)
    if isinstance(sampler, Clock):
        yield sampler.step, sampler.calls
    elif isinstance(sampler, Replay):
        graph, others = sampler.capture(), len(sampler.steps) - 1
        # the graph holds a whole round: the first call of each replays it, the others do nothing
        yield in_turn([graph.replay, *[lambda: None] * others]), others + 1
        graph.reset()
    else:
        yield in_turn(steps), len(steps)


def in_turn(steps: Sequence[Step]) -> Step:
    """A call that makes one of the calls after the other."""
    turns = itertools.cycle(steps)
    return lambda: next(turns)()


@pytest.mark.benchmark(timer=finished)
@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("contender", CONTENDERS)
@pytest.mark.parametrize("case", BENCH_CASES[DEVICE], ids=lambda case: case.name)
def test_operator(benchmark: BenchmarkFixture, case: Case, contender: str, direction: Direction) -> None:
    ready = stage(case, DEVICE, DTYPE)
    try:
        entrant = ready.enter(contender, direction)
    except Absent as reason:
        pytest.skip(str(reason))
    benchmark.group = f"{case.name} {direction}"
    steps = ready.steps(entrant, direction)
    if DEVICE == "cpu" and work(case, direction, DTYPE).flops > ONCE:
        saved = ready.saved_mb(entrant, direction)
        peak = ready.peak_mb(lambda: benchmark.pedantic(steps[0], rounds=1))
    else:
        with repeated(steps) as (step, calls):
            started = finished()
            for _ in range(calls):
                step()
            rounds = round(SECONDS / (finished() - started))
            benchmark.pedantic(step, rounds=max(3, min(MAX_ROUNDS, rounds)), iterations=calls)
        saved, peak = ready.saved_mb(entrant, direction), ready.peak_mb(steps[0])
    seconds = benchmark.stats.stats.median
    benchmark.extra_info.update(asdict(Rate.of(case, direction, DTYPE, seconds, measured_limits(DEVICE, DTYPE))))
    benchmark.extra_info.update(errors=entrant.errors, saved_mb=saved, peak_mb=peak, note=entrant.contender.note)

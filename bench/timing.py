"""How long calls take: on a CPU by the clock, on a GPU by replaying a captured graph between two events.

Contenders take turns, so that what slows the machine for a while slows all of them; each round begins with another.
"""

from __future__ import annotations

import itertools
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from inputs import Step

MIN_ROUNDS, MAX_ROUNDS = 3, 31
WARM_UP = 3
Now = Callable[[], float]
# by the wall's clock; or what all threads took of the processor, which other work on the machine changes little. Threads
# that wait for each other may count as busy: it is meant for one thread
CLOCKS: dict[str, Now] = {"clock": time.perf_counter, "processor": time.process_time}
CLOCK_SECONDS = 0.01  # a sample on a CPU repeats a short call until it takes so long
GRAPH_SECONDS, GRAPH_CALLS = 2e-3, 64  # a graph holds calls for so long, at most so many
SAMPLE_SECONDS, REPLAYS = 0.2, 10  # a sample replays its graph for so long, 3 times at least and at most so often


def clock(step: Step, calls: int, device: str, now: Now = time.perf_counter) -> float:
    """Seconds a call by the clock `now`, the mean of a few."""
    if device == "cuda":
        torch.cuda.synchronize()
    started = now()
    for _ in range(calls):
        step()
    if device == "cuda":
        torch.cuda.synchronize()
    return (now() - started) / calls


class Sampler(Protocol):
    """Times one contender. how: by what means."""

    how: str

    def sample(self) -> list[float]:
        """Seconds a call, one or more times."""


class Clock:
    """Calls on a CPU. how: a name of CLOCKS."""

    def __init__(self, step: Step, how: str = "clock") -> None:
        self.step, self.how = step, how
        self.calls = 1
        self.calls = max(1, math.ceil(CLOCK_SECONDS / self.sample()[0]))

    def sample(self) -> list[float]:
        """Seconds a call, the mean of a few."""
        return [clock(self.step, self.calls, "cpu", CLOCKS[self.how])]


class Events:
    """Calls on a GPU, launched one by one: for what cannot be captured."""

    def __init__(self, steps: Sequence[Step], why: str) -> None:
        self.steps, self.how = steps, f"events ({why})"

    def sample(self) -> list[float]:
        """Seconds a call, the mean over the input sets."""
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for step in self.steps:
            step()
        end.record()
        torch.cuda.synchronize()
        return [start.elapsed_time(end) / 1e3 / len(self.steps)]


class Replay:
    """Calls on a GPU out of a CUDA graph, which holds each input set's call in turn.

    The graph is captured for each sample and dropped after it: those of all contenders together need not fit.
    """

    how = "graph"

    def __init__(self, steps: Sequence[Step]) -> None:
        seconds = Events(steps, "").sample()[0]
        turns = max(1, min(GRAPH_CALLS, math.ceil(GRAPH_SECONDS / seconds)) // len(steps))
        self.steps = [*steps] * turns
        self.replays = max(3, min(REPLAYS, round(SAMPLE_SECONDS / (seconds * len(self.steps)))))

    def capture(self) -> torch.cuda.CUDAGraph:
        """A graph of all calls, replayed once."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for step in self.steps:
                step()
        graph.replay()
        return graph

    def sample(self) -> list[float]:
        """Seconds a call in each of a few replays."""
        graph = self.capture()
        events = [torch.cuda.Event(enable_timing=True) for _ in range(self.replays + 1)]
        events[0].record()
        for event in events[1:]:
            graph.replay()
            event.record()
        torch.cuda.synchronize()
        graph.reset()
        return [start.elapsed_time(end) / 1e3 / len(self.steps) for start, end in itertools.pairwise(events)]


def make_sampler(steps: Sequence[Step], device: str, how: str = "clock") -> Sampler:
    """Warm a contender up and choose how it is timed; how: the clock on a CPU, a name of CLOCKS."""
    if device == "cpu":
        steps[0]()
        return Clock(steps[0], how)
    for _ in range(WARM_UP):
        steps[0]()
    replay = Replay(steps)
    try:
        replay.sample()
    except RuntimeError as error:  # torch.OutOfMemoryError is one too
        torch.cuda.synchronize()
        return Events(steps, f"no graph: {str(error).splitlines()[0][:80]}")
    return replay


def interleave(samplers: Mapping[str, Sampler], seconds: float) -> dict[str, list[list[float]]]:
    """Samples of each contender by rounds: as many rounds as fit into `seconds`, MIN_ROUNDS at least."""
    names = list(samplers)
    rounds: dict[str, list[list[float]]] = {name: [] for name in names}
    started = time.perf_counter()
    for turn in range(MAX_ROUNDS):
        if turn >= MIN_ROUNDS and (time.perf_counter() - started) * (turn + 1) / turn > seconds:
            break
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            rounds[name].append(samplers[name].sample())
    return rounds


@dataclass(frozen=True)
class Spread:
    """Least, median and quartiles of repeated figures."""

    least: float
    median: float
    first_quartile: float
    third_quartile: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """The spread of one figure or more."""
        low, middle, high = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else [*values] * 3
        return cls(min(values), middle, low, high)

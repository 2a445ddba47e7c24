"""The machine's limits, measured in the process that times the contenders: a matrix product and a copy."""

from __future__ import annotations

import functools
import statistics
from dataclasses import dataclass

import torch
from inputs import Step
from timing import make_sampler

GEMM_SIDE = {"cpu": 2048, "cuda": 8192}
COPY_BYTES = {"cpu": 2**28, "cuda": 2**31}
SAMPLES = 7


@dataclass(frozen=True)
class Limits:
    """FLOP/s of a large matrix product in this dtype; bytes read and written a second by a large copy."""

    flops: float
    bytes: float


@functools.cache
def measured_limits(device: str, dtype: torch.dtype, how: str = "clock") -> Limits:
    """Measure both once a process by a clock of `timing.CLOCKS`; random numbers, the median of SAMPLES."""
    side, count = GEMM_SIDE[device], COPY_BYTES[device] // dtype.itemsize
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    product = torch.empty_like(a)
    gemm = _median(lambda: torch.mm(a, b, out=product), device, how)
    source = torch.randn(count // 2, device=device).to(dtype)
    target = torch.empty_like(source)
    copy = _median(lambda: target.copy_(source), device, how)
    return Limits(2 * side**3 / gemm, 2 * source.nbytes / copy)


def _median(step: Step, device: str, how: str) -> float:
    sampler = make_sampler([step], device, how)
    return statistics.median(seconds for _ in range(SAMPLES) for seconds in sampler.sample())

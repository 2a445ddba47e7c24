"""Candidate configurations of a kernel: compiled ahead of time, and timed on the GPU at hand."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from triton.runtime import driver
from triton.testing import do_bench

from ... import triton_backend
from ..configs import NARROW, Config, config_for, forced
from ..launch import Launch, recorded
from .compile import Compiled, compile_launch
from .variants import Problem, processes, variants_of

# rows, keys, warps, stages for 16-bit types, and for float32, whose products need more registers
NARROW_CHOICES = ((32, 64, 128), (32, 64, 128), (4, 8), (2, 3, 4))
WIDE_CHOICES = ((16, 32, 64), (16, 32, 64), (4, 8), (1, 2))
# logits of a tile that a thread may hold: with more, nothing but spills is left
NARROW_LOGITS, WIDE_LOGITS = 64, 16


@dataclass(frozen=True)
class Candidate:
    """A kernel, by its name in the tables of configs.py, with one configuration."""

    kernel: str
    config: Config

    def among(self, launches: Sequence[Launch]) -> list[Launch]:
        """Those launches that are its kernel's."""
        return [launch for launch in launches if launch.kernel.fn.__name__ == f"{self.kernel}_kernel"]


def tunable_kernels(problem: Problem) -> list[str]:
    """The kernels of a problem that configs.py has a row for."""
    names = dict.fromkeys(variant.kernel.removesuffix("_kernel") for variant in variants_of(problem, 90))
    return [name for name in names if name in NARROW]


def candidates_of(kernel: str, dtype: torch.dtype, dim: int) -> list[Candidate]:
    """What is tried: the present configuration first."""
    wide = dtype == torch.float32
    choices, limit = (WIDE_CHOICES, WIDE_LOGITS) if wide else (NARROW_CHOICES, NARROW_LOGITS)
    configs = [Config(*choice) for choice in itertools.product(*choices)]
    fitting = [config for config in configs if config.rows * config.keys <= limit * 32 * config.warps]
    return [Candidate(kernel, config) for config in dict.fromkeys([config_for(kernel, dtype, dim), *fitting])]


def compile_candidates(
    problem: Problem, candidates: Sequence[Candidate], arch: int, shared_limit: int, jobs: int
) -> Iterator[Compiled | str]:
    """Compile each in `jobs` processes: what its most demanding launch needs, or why it cannot run."""
    with processes(jobs) as pool:
        yield from pool.map(partial(_compile, problem, arch, shared_limit), candidates)


def _compile(problem: Problem, arch: int, shared_limit: int, candidate: Candidate) -> Compiled | str:
    with forced(candidate.kernel, candidate.config):
        launches = candidate.among([x.launch for x in variants_of(problem, arch) if x.direction != "inference"])
    try:
        needs = [compile_launch(launch, arch) for launch in launches]
    # whatever Triton's compiler raises only rules this candidate out
    except Exception as error:
        return f"does not compile: {type(error).__name__}: {str(error)[:100]!r}"
    worst = max(needs, key=lambda x: (x.shared, x.spill_stores, x.registers))
    if worst.shared > shared_limit:
        return f"needs {worst.shared} bytes of shared memory, at most {shared_limit}"
    return worst


def current_gpu() -> tuple[int, int]:
    """The GPU at hand: compute capability, as in sm_90, and the bytes of shared memory that a program may have."""
    major, minor = torch.cuda.get_device_capability()
    properties = driver.active.utils.get_device_properties(torch.cuda.current_device())
    return 10 * major + minor, int(properties["max_shared_mem"])


class Stopwatch:
    """Times candidates on one problem; its tensors live on the GPU as long as it does."""

    def __init__(self, problem: Problem) -> None:
        *self.inputs, self.spec = problem.inputs("cuda")
        self.out, self.lse = triton_backend.forward(*self.inputs, self.spec, needs_lse=True)

    def __call__(self, candidate: Candidate) -> float:
        """Median milliseconds of the launches of the candidate's kernel in one forward and backward."""
        with forced(candidate.kernel, candidate.config), recorded() as launches:
            triton_backend.forward(*self.inputs, self.spec, needs_lse=True)
            triton_backend.backward(self.out, *self.inputs, self.lse, self.spec)
        # each once and in turn, so that what one hands to the next is there
        for launch in launches:
            launch.run()
        own = candidate.among(launches)
        return float(do_bench(lambda: [launch.run() for launch in own], return_mode="median"))

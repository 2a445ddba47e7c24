"""`python -m diffrgen_kernels.tune`: find the fastest configuration of each kernel on the GPU at hand, and keep it.

Later runs on such a GPU take it from the file that triton_backend/tuned.py describes. --dry-run needs no GPU: it lists
the candidates with what they need.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import torch

from .inspect import ARCHS, DTYPES, Row, table

if TYPE_CHECKING:
    from .triton_backend.tools.tuning import Candidate
    from .triton_backend.tools.variants import Problem


def list_candidates(problem: Problem, word: str, arch: int, jobs: int) -> list[Row]:
    """A row for each candidate of each kernel: what it needs on sm_{arch}, or why it cannot run."""
    from .triton_backend.configs import compiling_for
    from .triton_backend.tools.compile import SHARED_LIMITS
    from .triton_backend.tools.tuning import candidates_of, compile_candidates, tunable_kernels

    rows = []
    for kernel in (name for name in tunable_kernels(problem) if word in name):
        with compiling_for(arch):
            candidates = candidates_of(kernel, problem.dtype, problem.dim)
        found = compile_candidates(problem, candidates, arch, SHARED_LIMITS[arch], jobs)
        for candidate, result in zip(candidates, found, strict=True):
            needs = {"skipped": result} if isinstance(result, str) else asdict(result)
            rows.append({"kernel": kernel, **asdict(candidate.config), **needs})
    return rows


def tune_kernel(kernel: str, problems: Sequence[Problem], jobs: int) -> Candidate:
    """The candidate with the least time against the present configuration's: a geometric mean over the problems."""
    from .triton_backend.tools.tuning import Stopwatch, candidates_of, compile_candidates, current_gpu

    arch, shared_limit = current_gpu()
    sums = dict.fromkeys(candidates_of(kernel, problems[0].dtype, problems[0].dim), 0.0)  # of logarithms of times
    present = next(iter(sums))
    for problem in problems:
        # compiled in many processes, so that Triton finds what is timed in its cache
        needs = dict(zip(sums, compile_candidates(problem, list(sums), arch, shared_limit, jobs), strict=True))
        for candidate, result in needs.items():
            if isinstance(result, str):
                print(f"skipped {kernel} {candidate.config}: {result}", flush=True)
                del sums[candidate]
        if not sums:
            raise SystemExit(f"{kernel}: no configuration runs on sm_{arch}")
        stopwatch = Stopwatch(problem)
        times = {candidate: stopwatch(candidate) for candidate in sums}
        sums = {candidate: sums[candidate] + math.log(time) for candidate, time in times.items()}
        fastest = min(times, key=times.__getitem__)
        now = f"{times[present]:.3f} ms" if present in times else "does not run"
        print(f"{kernel}, grid {problem.grid}: {now}, best {times[fastest]:.3f} ms, {fastest.config}", flush=True)
    return min(sums, key=sums.__getitem__)


def tune(problems: Sequence[Problem], word: str, jobs: int) -> None:
    """Tune every kernel of the problems and write what is found."""
    from .triton_backend.tools.tuning import tunable_kernels
    from .triton_backend.tuned import key_of, read, tuned_file, write

    file = tuned_file()
    if file is None:
        raise SystemExit("DIFFRGEN_TUNED is empty, so that there is no file to write: unset it or name one")
    try:
        read(file)
    except ValueError as error:
        raise SystemExit(f"{error}\nmove it away or name another one: DIFFRGEN_TUNED=FILE") from error
    dtype, dim, device = problems[0].dtype, problems[0].dim, torch.cuda.get_device_name()
    by_kernel: dict[str, list[Problem]] = {}
    for problem in problems:
        for kernel in tunable_kernels(problem):
            by_kernel.setdefault(kernel, []).append(problem)
    for kernel, cases in by_kernel.items():
        if word in kernel:
            best = tune_kernel(kernel, cases, jobs)
            write(file, device, {key_of(kernel, dtype, dim): asdict(best.config)})
            print(f"{kernel}: keeps {best.config}", flush=True)
    print(f"written: {file}")


def _arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m diffrgen_kernels.tune", description=__doc__)
    parser.add_argument("--dtype", default="bf16", choices=DTYPES, help="of q, k and v")
    parser.add_argument("--dim", type=int, default=64, help="head dimension D")
    parser.add_argument("--sides", nargs="+", type=int, default=[7, 14, 32, 64], help="sides of the square patch grids")
    parser.add_argument("--orders", nargs="+", type=int, default=[0, 1, 2, 3], help="window order of each mask")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--heads", type=int, default=8)
    parser.add_argument("--projections", default="own", choices=["own", "shared"], help="own for each mask, or shared")
    parser.add_argument("--kernel", default="", help="only kernels whose names hold this word")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes that compile")
    parser.add_argument("--dry-run", action="store_true", help="list the candidates, time nothing, write nothing")
    parser.add_argument("--arch", type=int, default=90, choices=ARCHS, help="compute capability, for --dry-run")
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> int:
    """Run the command: 0, or 1 where there is nothing to run it on."""
    options = _arguments(words)
    if not options.dry_run and not torch.cuda.is_available():
        print("PyTorch sees no GPU to time kernels on; --dry-run lists the candidates without one", file=sys.stderr)
        return 1
    try:
        from .triton_backend.tools.variants import Problem
    except ImportError as error:
        print(f"Triton cannot be imported ({error}): pip install triton", file=sys.stderr)
        return 1
    problems = [
        Problem(
            DTYPES[options.dtype],
            options.dim,
            options.projections,
            grid=(side, side),
            batch=options.batch,
            heads=options.heads,
            orders=tuple(options.orders),
        )
        for side in options.sides
    ]
    if options.dry_run:
        print(table(list_candidates(problems[-1], options.kernel, options.arch, options.jobs)))
    else:
        tune(problems, options.kernel, options.jobs)
    return 0


if __name__ == "__main__":
    sys.exit(main())

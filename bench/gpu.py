"""`python bench/gpu.py --part a`: measure this project on a GPU that is lent for minutes, in calls of four at most.

    --part a   builds the extension, times 49 and 1024 patches, holds both backends to the parity table
    --part b   tunes the Triton kernels of the case that is farthest from its goal in part a, and times it again
    --part c   times 4096 patches, then training and generation of the whole network

What is worth most comes first. A part writes OUTPUT/a.json (b, c) after every step; the same call again goes on with
what is missing there. It needs torch, triton, transformers and numpy, and nvcc for the extension.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from cases import DTYPES, ROOT, Direction, select_cases
from diffrgen_kernels.inspect import DTYPES as NAMED_DTYPES
from goals import farthest, judge, print_goals, print_times
from machine import commit
from session import Session
from visit import Step, Visit

TUNED = "DIFFRGEN_TUNED"  # names the file that the sweep writes and the Triton backend reads
# eager's weights of 4096 patches and their gradients do not fit beside the other contenders'
CONTENDERS = {
    49: ("eager", "compiled", "native", "triton", "sdpa", "xformers"),
    1024: ("eager", "compiled", "native", "triton", "sdpa", "xformers", "flex"),
    4096: ("compiled", "native", "triton", "sdpa", "xformers"),
}
QUICK = ("eager", "native", "sdpa")


def build(options: argparse.Namespace) -> Step:
    """Build the extension in place, for this GPU alone."""
    environment = {} if options.device == "cpu" else {"DIFFRGEN_CUDA_ARCHS": _capability()}
    return Step("build", ("setup.py", "build_ext", "--inplace"), 2.5, script=False, environment=environment)


def _capability() -> str:
    return "{}{}".format(*torch.cuda.get_device_capability())


def times(options: argparse.Namespace, patches: int, direction: Direction, **changes: Any) -> Step:
    """All contenders on one case in one direction."""
    case = next(each for each in select_cases("cuda", None, quick=False) if each.grid[0] * each.grid[1] == patches)
    contenders = changes.pop("contenders", CONTENDERS[patches])
    which = ["--quick", "--contenders", *QUICK] if options.quick else ["--cases", case.name, "--contenders", *contenders]
    command = ("compare.py", "--device", options.device, "--seconds", str(options.seconds), "--directions", direction, *which)
    return Step(f"{patches} patches, {direction}", command, 2.5, **changes)


def parity(options: argparse.Namespace, backend: str) -> Step:
    """A backend held to the bounds of the parity table, in as many processes as there are cores, 8 at most."""
    jobs = 1 if options.quick else min(8, os.cpu_count() or 1)
    command = ("errors.py", "--device", options.device, "--backends", backend, "--jobs", str(jobs))
    return Step(f"parity of {backend}", (*command, *(["--cases", "2"] if options.quick else [])), 2.5, resumed=True)


def part_a(options: argparse.Namespace) -> list[Step]:
    """The extension, times of 49 and 1024 patches, parity."""
    return [
        *([] if options.no_build else [build(options)]),
        times(options, 49, "forward_backward"),
        times(options, 1024, "forward_backward"),
        *([parity(options, "triton")] if options.device == "cuda" else []),
        times(options, 1024, "forward"),
        times(options, 49, "forward"),
        parity(options, "native"),
    ]


def part_b(options: argparse.Namespace) -> list[Step]:
    """Every kernel of the worst case swept, those of its direction first; ValueError where part a has no times."""
    path = options.output / "a.json"
    rows = json.loads(path.read_text(encoding="utf-8"))["rows"] if path.exists() else []
    worst = farthest(rows)
    if worst is None:
        raise ValueError(f"{path}: expected times of the Triton backend there: run --part a first")
    side, direction = worst
    environment = {TUNED: str((options.output / "tuned.json").resolve())}
    sweep = ("-m", "diffrgen_kernels.tune", "--sides", str(side))
    tuning = [
        Step(f"tune {kernel}", (*sweep, "--kernel", kernel), 2, script=False, environment=environment)
        for kernel in kernels_of(side, direction)
    ]
    contenders = ("eager", "compiled", "triton")
    again: list[Direction] = ["forward_backward", "forward"]
    return tuning + [times(options, side * side, each, contenders=contenders, environment=environment) for each in again]


def kernels_of(side: int, direction: Direction) -> list[str]:
    """The Triton kernels that a square grid needs and that can be tuned, those of the direction first."""
    from diffrgen_kernels.triton_backend.tools.tuning import tunable_kernels
    from diffrgen_kernels.triton_backend.tools.variants import Problem

    kernels = tunable_kernels(Problem(grid=(side, side)))
    return sorted(kernels, key=lambda kernel: ("forward" in kernel) != (direction == "forward"))


def part_c(options: argparse.Namespace) -> list[Step]:
    """4096 patches, then the whole network."""
    where = ("--device", options.device)
    quick = ("--quick",) if options.quick else ()
    training = ("training.py", "synthetic", *where, *quick)
    generation = ("generation.py", *where, *quick, "--seconds", "1" if options.quick else "15")
    if not options.quick:
        generation += ("--studies", "16", "--contenders", "ours", "vision_encoder_decoder", "ours_bf16")
    ways = ("--ways", "fused", "reference")
    return [
        times(options, 4096, "forward_backward"),
        Step("training, paper", (*training, "--settings", "paper", *ways), 2),
        times(options, 4096, "forward"),
        Step("generation", generation, 2),
        Step("training, tokens of 512 px", (*training, "--settings", "tokens_512px", *ways), 2),
        Step("aggregation", ("aggregation.py", *where, *quick, "--seconds", "1" if options.quick else "5"), 2),
    ]


PARTS: dict[str, Callable[[argparse.Namespace], list[Step]]] = {"a": part_a, "b": part_b, "c": part_c}


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=PARTS, required=True)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda", help="(default: %(default)s)")
    parser.add_argument("--minutes", type=float, default=3.8, help="of this call (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=5.0, help="of timing a case and direction (%(default)s)")
    parser.add_argument("--steps", nargs="+", metavar="NAME", help="these alone, even if they are done")
    parser.add_argument("--output", type=Path, default=ROOT / "bench" / "results" / "gpu")
    parser.add_argument("--commit", help="that is measured, where there is no git tree to ask")
    parser.add_argument("--no-build", action="store_true", help="take the extension as it is")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to try the script itself")
    options = parser.parse_args(arguments)
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: PyTorch sees no GPU here")
    if options.commit:
        os.environ["DIFFRGEN_COMMIT"] = options.commit
    if commit() is None:
        parser.error("--commit: expected the commit that is measured, since there is no git tree here")
    try:
        options.planned = PARTS[options.part](options)
        if options.quick:  # limits are those of a GPU
            options.planned = [replace(step, minutes=options.minutes) for step in options.planned]
    except ValueError as error:
        parser.error(str(error))
    names = [step.name for step in options.planned]
    if options.steps and not set(options.steps) <= set(names):
        parser.error(f"--steps: expected some of {names}, got {options.steps}")
    return options


def main(arguments: Sequence[str]) -> int:
    """Take the steps; the status is 0 if all of the part are done."""
    options = parse(arguments)
    os.environ[TUNED] = ""  # without the tuning, the configurations that the package comes with
    session = Session(options.minutes, options.output / "log.txt")
    dtype = next(name for name, each in NAMED_DTYPES.items() if each == DTYPES[options.device])
    try:
        visit = Visit(options.output / f"{options.part}.json", session, options.device, dtype)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    chosen = [step for step in options.planned if step.name in (options.steps or ())]
    for step in chosen or visit.ordered(options.planned):
        visit.take(step)
    print_times(visit.found["rows"])
    print_goals(judge(visit.found["rows"]))
    left = [step.name for step in visit.ordered(options.planned)]
    print("all steps are done" if not left else f"not done: {', '.join(left)}")
    return int(bool(left))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

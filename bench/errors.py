"""`python bench/errors.py`: every backend's errors over the parity table, held to the bounds of `tests/test_kernels.py`.

It needs torch alone (and Triton for its kernels). Cases are shared among processes, since Triton compiles anew for
each. The file is written after every case: `--resume` goes on with what it lacks, so that short visits to a GPU add up.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from cases import Case
from diffrgen_kernels import routed_coattention
from diffrgen_kernels.dispatch import BACKENDS
from diffrgen_kernels.inspect import DTYPES
from kernel_cases import CASES, GENERAL_CASES
from kernel_errors import NAMES, absent, bound, error, results, truth_and_eager, unsupported
from result import write_brief

BY_NAME = {case.name: case for case in (*CASES, *GENERAL_CASES)}
# those that reach most of the kernels come first
FIRST = ("dim_64", "many_patches_and_rows", "shared_projections", "many_patches_general", "exclusive", "all_at_once")


@dataclass(frozen=True)
class Check:
    """One call: the case's name, a backend and a dtype (a name of DTYPES) on a device."""

    backend: str
    device: str
    dtype: str
    case: str

    @property
    def kind(self) -> str:
        """The key of its results."""
        return f"{self.backend} {self.dtype}"


@dataclass(frozen=True)
class Worst:
    """The largest error of a backend in a tensor, the case that has it, and eager PyTorch's error there.

    times_bound: the largest error as a multiple of its bound, over all cases.
    """

    error: float = 0.0
    case: str = ""
    eager: float = 0.0
    times_bound: float = 0.0

    def joined(self, other: Worst) -> Worst:
        """The worse of both."""
        worse = max(self, other, key=lambda each: each.error)
        return replace(worse, times_bound=max(self.times_bound, other.times_bound))


@dataclass
class Found:
    """All results so far: the cases done and the worst of each tensor, by backend and dtype; what raised or erred too much."""

    done: dict[str, list[str]] = field(default_factory=dict)
    worst: dict[str, dict[str, Worst]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    @classmethod
    def read(cls, path: Path) -> Found:
        """The results of an earlier run."""
        kept = json.loads(path.read_text(encoding="utf-8"))
        worst = {kind: {name: Worst(**row) for name, row in rows.items()} for kind, rows in kept["worst"].items()}
        return cls(kept["done"], worst, kept["failures"])

    def has(self, check: Check) -> bool:
        """It was checked before."""
        return check.case in self.done.get(check.kind, ())

    def add(self, check: Check, rows: dict[str, Worst] | str) -> None:
        """Take up one result; a failure counts as done."""
        self.done.setdefault(check.kind, []).append(check.case)
        if isinstance(rows, str):
            self.failures.append(f"{check.kind} {check.case}: {rows}")
            return
        kept = self.worst.setdefault(check.kind, {})
        for name, row in rows.items():
            kept[name] = kept.get(name, Worst()).joined(row)
            if not row.times_bound <= 1:  # NaN too
                words = f"{name} errs by {row.error:.2e}, {row.times_bound:.3g} times its bound"
                self.failures.append(f"{check.kind} {check.case}: {words}")


def measure(check: Check) -> dict[str, Worst] | str:
    """The errors of one call by tensor, or why it has none."""
    case, dtype = BY_NAME[check.case], DTYPES[check.dtype]
    inputs = case.inputs(dtype, check.device)
    options = case.options_on(check.device)
    exact, eager = truth_and_eager(case, inputs)
    try:
        own = results(lambda *x: routed_coattention(*x, **options, backend=check.backend), inputs)
    except Exception as reason:  # compilers and drivers raise what they like
        return f"{type(reason).__name__}: {reason}"[:300]
    rows = {}
    for name, value, true, plain in zip(NAMES, own, exact, eager, strict=True):
        mine, theirs = error(value, true), error(plain, true)
        rows[name] = Worst(mine, case.name, theirs, mine / bound(dtype, theirs))
    return rows


def checks(backends: Sequence[str], device: str, dtypes: Sequence[str], cases: Sequence[Case]) -> list[Check]:
    """Every call that can be made here, case by case; prints which backends cannot run and why."""
    able = []
    for backend in backends:
        for dtype in dtypes:
            if (reason := absent(backend, device, DTYPES[dtype])) is None:
                able.append((backend, dtype))
            else:
                print(f"{backend} {dtype}: {reason}", flush=True)
    found = [Check(backend, device, dtype, case.name) for case in cases for backend, dtype in able]
    return [check for check in found if unsupported(BY_NAME[check.case], check.backend, device) is None]


def measured(wanted: Sequence[Check], jobs: int) -> Iterator[tuple[Check, dict[str, Worst] | str]]:
    """Results as they come, out of so many processes."""
    if jobs == 1:
        yield from ((check, measure(check)) for check in wanted)
        return
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        running = {pool.submit(measure, check): check for check in wanted}
        for future in as_completed(running):
            yield running[future], future.result()


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--backends", nargs="+", choices=BACKENDS, default=list(BACKENDS))
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=["bf16", "fp32", "fp16"])
    parser.add_argument("--cases", type=int, default=len(BY_NAME), help="only so many of the table's cases")
    parser.add_argument("--jobs", type=int, default=1, help="processes (default: %(default)s)")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    parser.add_argument("--resume", action="store_true", help="leave out what the file has")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    """Measure, print a line for each tensor, write JSON; return 1 where a call raised or erred too much, or none is possible."""
    options = parse(arguments)
    resumed = options.resume and options.output and options.output.exists()
    found = Found.read(options.output) if resumed else Found()
    cases = sorted(BY_NAME.values(), key=lambda case: FIRST.index(case.name) if case.name in FIRST else len(FIRST))
    wanted = checks(options.backends, options.device, options.dtypes, cases[: options.cases])
    for check, rows in measured([check for check in wanted if not found.has(check)], options.jobs):
        found.add(check, rows)
        if options.output:
            write_brief(options.output, asdict(found))
    for kind, worst in found.worst.items():
        for name, row in worst.items():
            where = f"{row.case}; eager {row.eager:.1e}, at most {row.times_bound:.2f} of its bound"
            print(f"{kind:15} {name:6} {row.error:.1e} ({where})")
    print(*found.failures, sep="\n")
    return int(bool(found.failures) or not wanted)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

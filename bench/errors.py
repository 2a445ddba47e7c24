"""`python bench/errors.py`: the worst error of every backend over the parity table, by dtype and tensor."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from cases import Case
from diffrgen_kernels import routed_coattention
from diffrgen_kernels.dispatch import BACKENDS
from kernel_backends import NAMES, absent, error, results, truth_and_eager
from kernel_cases import CASES

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class Worst:
    """The largest error of a backend in a tensor, the case that has it, and eager PyTorch's error there.

    times_eager: the largest error as a multiple of eager PyTorch's in the same case, over all cases.
    """

    backend: str
    dtype: str
    tensor: str
    error: float
    case: str
    eager: float
    times_eager: float


@dataclass(frozen=True)
class Failure:
    """A call that raised."""

    backend: str
    dtype: str
    case: str
    reason: str


def measure(backend: str, device: str, dtype: torch.dtype, cases: Iterable[Case]) -> tuple[list[Worst], list[Failure]]:
    """The worst errors of one backend in one dtype."""
    found: dict[str, list[tuple[float, float, str]]] = {name: [] for name in NAMES}
    failures, short = [], str(dtype).removeprefix("torch.")
    for case in cases:
        inputs = case.inputs(dtype, device)
        exact, eager = truth_and_eager(case, inputs)
        try:
            own = results(lambda *x, case=case: routed_coattention(*x, **case.options, backend=backend), inputs)
        except Exception as reason:  # compilers and drivers raise what they like
            failures.append(Failure(backend, short, case.name, f"{type(reason).__name__}: {reason}"[:300]))
            continue
        for name, value, true, plain in zip(NAMES, own, exact, eager, strict=True):
            found[name].append((error(value, true), error(plain, true), case.name))
    worst = []
    for name, values in found.items():
        if values:
            own_error, eager_error, case_name = max(values, key=lambda v: v[0])  # NaN is caught by the parity tests
            floor = torch.finfo(dtype).eps / 4
            times = max(own / max(plain, floor) for own, plain, _ in values)
            worst.append(Worst(backend, short, name, own_error, case_name, eager_error, times))
    return worst, failures


def main(arguments: Sequence[str]) -> int:
    """Measure, print a line for each tensor, write JSON; return 1 where a call raised."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--cases", type=int, default=len(CASES), help="only so many of the table's cases")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    options = parser.parse_args(arguments)
    worst: list[Worst] = []
    failures: list[Failure] = []
    for backend in BACKENDS:
        for dtype in DTYPES:
            if (reason := absent(backend, options.device, dtype)) is not None:
                print(f"{backend} {dtype}: {reason}")
                continue
            rows, broken = measure(backend, options.device, dtype, CASES[: options.cases])
            worst, failures = worst + rows, failures + broken
            for row in rows:
                where = f"{row.case}; eager {row.eager:.1e}), at most {row.times_eager:.2f} x eager"
                print(f"{row.backend:9} {row.dtype:8} {row.tensor:6} {row.error:.1e} ({where}")
    for failure in failures:
        print(f"{failure.backend} {failure.dtype} {failure.case}: {failure.reason}")
    if options.output:
        result = {"worst": [asdict(row) for row in worst], "failures": [asdict(row) for row in failures]}
        options.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""`python bench/compare.py`: the operator's contenders timed in turns on the benchmark's cases.

Every contender is checked against Eq. 5 in float64 before it is timed, a yardstick against its own mathematics.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from cases import DIRECTIONS, DTYPES, select_cases
from comparison import Comparison, Missing, Row
from contenders import CONTENDERS
from diffrgen_kernels.inspect import DTYPES as NAMED_DTYPES
from limits import Limits, measured_limits
from machine import describe
from result import write_brief
from table import print_rows
from timing import CLOCKS


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", choices=("cpu", "cuda"), default=default, help="where (default: %(default)s)")
    parser.add_argument("--cases", nargs="+", metavar="WORD", help="cases whose names hold one of these words")
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    parser.add_argument("--directions", nargs="+", choices=DIRECTIONS, default=list(DIRECTIONS))
    parser.add_argument("--dtype", choices=NAMED_DTYPES, help="of q, k and v (default: fp32 on a CPU, bf16 on a GPU)")
    parser.add_argument("--clock", choices=CLOCKS, default="clock", help="on a CPU: the wall's, or processor seconds")
    parser.add_argument("--seconds", type=float, default=20.0, help="of timing a case and direction (%(default)s)")
    parser.add_argument("--output", type=Path, help="JSON file, written anew after each case and direction")
    parser.add_argument("--quick", action="store_true", help="two tiny cases instead of the benchmark's")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    """Compare; return 1 where a contender is wrong or broke, 0 where the missing ones could not have run."""
    options = parse(arguments)
    device, dtype = options.device, NAMED_DTYPES.get(options.dtype, DTYPES[options.device])
    limits = measured_limits(device, dtype, options.clock)
    reached = f"a matrix product reaches {limits.flops / 1e9:.0f} GFLOP/s, a copy {limits.bytes / 1e9:.1f} GB/s"
    print(f"{dtype} on {device}: {reached}", flush=True)
    rows: list[Row] = []
    missing: list[Missing] = []
    for case in select_cases(device, options.cases, quick=options.quick):
        comparison = Comparison(case, device, dtype, options.clock)
        for direction in options.directions:
            comparison.run(options.contenders, direction, options.seconds, limits)
            if options.output:
                write(options.output, rows + comparison.rows, missing + comparison.missing, device, dtype, limits)
        print_rows(comparison.rows, comparison.missing)
        rows, missing = rows + comparison.rows, missing + comparison.missing
    return int(any(gap.trace for gap in missing))


def write(
    path: Path, rows: Sequence[Row], missing: Sequence[Missing], device: str, dtype: torch.dtype, limits: Limits
) -> None:
    """Everything as JSON, floats to four digits."""
    result = {
        "device": device,
        "dtype": str(dtype).removeprefix("torch."),
        "machine": describe(device),
        "limits": asdict(limits),
        "rows": [asdict(row) for row in rows],
        "missing": [asdict(gap) for gap in missing],
    }
    write_brief(path, result)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

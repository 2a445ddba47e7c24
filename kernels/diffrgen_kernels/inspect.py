"""`python -m diffrgen_kernels.inspect`: registers, spills, shared memory and tensor core instructions of every kernel.

Everything is compiled ahead of time, so that no GPU is needed.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from .triton_backend.tools.variants import Variant

ARCHS = {80: "A100", 90: "H100, H200"}
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
Row = dict[str, Any]


def triton_rows(
    arch: int, dtypes: Sequence[torch.dtype], dims: Sequence[int], kernel: str, jobs: int
) -> tuple[list[Row], list[str]]:
    """A row for each variant whose kernel's name holds `kernel`, and a line for each that does not compile.

    Raises:
        RuntimeError: Triton cannot be imported, or would interpret the kernels.
    """
    try:
        from .triton_backend.tools.variants import compile_variants, problems, processes, variants_of
    except ImportError as error:
        raise RuntimeError(f"Triton cannot be imported ({error}): pip install triton") from error
    variants = [x for problem in problems(dtypes, dims) for x in variants_of(problem, arch) if kernel in x.kernel]
    rows, failures = [], []
    with processes(jobs) as pool:
        results = compile_variants(pool, variants, arch)
        for done, (variant, result) in enumerate(zip(variants, results, strict=True), 1):
            _show_progress(done, len(variants))
            if isinstance(result, Exception):
                failures.append(f"{' '.join(map(str, _describe(variant).values()))}: {result}")
            else:
                rows.append({"source": "triton", "arch": arch, **_describe(variant), **asdict(result)})
    return rows, failures


def _describe(variant: Variant) -> Row:
    problem, launch = variant.problem, variant.launch
    return {
        "kernel": variant.kernel,
        "pass": variant.direction,
        "dtype": next(name for name, dtype in DTYPES.items() if dtype == problem.dtype),
        "dim": problem.dim,
        "projections": problem.projections,
        "masking": problem.masking,
        "patches": problem.grid[0] * problem.grid[1],
        "rows": launch.constants.get("ROWS"),
        "keys": launch.constants.get("KEYS"),
        "warps": launch.warps,
        "stages": launch.stages,
    }


def cuda_rows(arch: int) -> list[Row]:
    """A row for each kernel of the CUDA extension.

    Raises:
        RuntimeError: its objects cannot be made here; gives the reason.
    """
    try:
        objects = importlib.import_module(f"{__package__}.cuda_objects")
    except ModuleNotFoundError as error:
        raise RuntimeError(f"this version of diffrgen_kernels has no CUDA objects ({error})") from error
    return [{"source": "cuda", "arch": arch, **row} for row in objects.cuda_kernels(arch)]


def table(rows: Sequence[Row]) -> str:
    """Rows as aligned columns under the keys of all of them."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    cells = [names, *([str(row.get(name, "")) for name in names] for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(names))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells
    )


def _show_progress(done: int, total: int) -> None:
    if sys.stderr.isatty():
        print(f"\rcompiled {done} of {total}", end="\n" if done == total else "", file=sys.stderr, flush=True)


def _print(sources: Iterable[Sequence[Row]], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps([row for rows in sources for row in rows], indent=1))
    else:
        print("\n\n".join(table(rows) for rows in sources if rows))


def _arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m diffrgen_kernels.inspect", description=__doc__)
    archs = ", ".join(f"{arch} ({names})" for arch, names in ARCHS.items())
    parser.add_argument("--arch", type=int, default=90, choices=ARCHS, help=f"compute capability: {archs}")
    parser.add_argument("--dtype", nargs="+", default=list(DTYPES), choices=DTYPES, help="of q, k and v")
    parser.add_argument("--dim", nargs="+", type=int, default=[16, 40, 64, 96, 128, 256], help="head dimension D")
    parser.add_argument("--kernel", default="", help="only kernels whose names hold this word")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes that compile")
    parser.add_argument("--json", action="store_true", help="one JSON list instead of a table")
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> int:
    """Run the command: 0, or 1 if something that is there does not compile."""
    options = _arguments(words)
    sources: list[list[Row]] = []
    failures: list[str] = []
    try:
        rows, failures = triton_rows(
            options.arch, [DTYPES[name] for name in options.dtype], options.dim, options.kernel, options.jobs
        )
        sources.append(rows)
    except RuntimeError as error:
        print(f"no Triton kernels are listed: {error}", file=sys.stderr)
    try:
        sources.append([row for row in cuda_rows(options.arch) if options.kernel in str(row.get("kernel", ""))])
    except RuntimeError as error:
        print(f"no CUDA kernels are listed: {error}", file=sys.stderr)
    _print(sources, as_json=options.json)
    for failure in failures:
        print(f"does not compile for sm_{options.arch}: {failure}", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())

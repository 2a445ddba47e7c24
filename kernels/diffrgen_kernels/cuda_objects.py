"""Registers, spills and shared memory of the CUDA C++ kernels, as nvcc's assembler reports them; no GPU is needed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SOURCES = Path(__file__).resolve().parents[2] / "csrc" / "cuda"
_DTYPES = {"If": "float32", "IN3c104HalfE": "float16", "IN3c108BFloat16E": "bfloat16"}
_ENTRY = re.compile(
    r"Compiling entry function '(?P<symbol>\w+)'.*?(?P<stores>\d+) bytes spill stores, (?P<loads>\d+) bytes spill loads"
    r".*?Used (?P<registers>\d+) registers(?P<rest>[^\n]*)",
    re.DOTALL,
)


def cuda_kernels(arch: int) -> list[dict[str, Any]]:
    """Compile csrc/cuda for one compute capability and report the resources of each kernel.

    Args:
        arch: compute capability without the point, as 80 or 90.

    Returns:
        For each kernel and dtype a record with `kernel` (name), `dtype` (of q, k and v; None if there is one for all),
        `arch`, `registers` a thread, `spill_stores` and `spill_loads` (bytes a thread) and `static_shared` (bytes a
        block; these kernels take their shared memory dynamically, at launch).

    Raises:
        RuntimeError: nvcc or the sources are missing, or nvcc fails; names the missing requirement.
    """
    if not SOURCES.is_dir():
        raise RuntimeError(f"the CUDA sources are not at {SOURCES}: run this in a source checkout (pip install -e)")
    home = os.environ.get("CUDA_HOME")
    nvcc = shutil.which("nvcc", path=str(Path(home, "bin"))) if home else shutil.which("nvcc")
    if nvcc is None:
        raise RuntimeError(f"no nvcc was found in {'CUDA_HOME' if home else 'PATH'}: install the CUDA toolkit")
    return [
        record
        for source in sorted(SOURCES.glob("*.cu"))
        if source.stem != "library"  # it launches kernels and has none
        for record in _records(_assembler_report(nvcc, source, arch), arch)
    ]


def _assembler_report(nvcc: str, source: Path, arch: int) -> str:
    from torch.utils.cpp_extension import include_paths

    folders = [f"-isystem={path}" for path in include_paths()]
    with tempfile.TemporaryDirectory() as folder:
        command = [nvcc, "-cubin", "-std=c++17", "-O3", f"-arch=sm_{arch}", "-Xptxas=-v", *folders]
        run = subprocess.run([*command, source, "-o", Path(folder, "kernels.cubin")], capture_output=True, text=True)
    if run.returncode != 0:
        raise RuntimeError(f"nvcc failed on {source}: {run.stderr.strip()}")
    return run.stderr


def _records(report: str, arch: int) -> Iterator[dict[str, Any]]:
    for entry in _ENTRY.finditer(report):
        kernel, dtype = _name(entry["symbol"])
        shared = re.search(r"(\d+) bytes smem", entry["rest"])
        yield {
            "kernel": kernel,
            "dtype": dtype,
            "arch": arch,
            "registers": int(entry["registers"]),
            "spill_stores": int(entry["stores"]),
            "spill_loads": int(entry["loads"]),
            "static_shared": int(shared[1]) if shared else 0,
        }


def _name(symbol: str) -> tuple[str, str | None]:
    """Name and dtype of a mangled kernel: _ZN, names with their lengths before them, template arguments."""
    name, rest = "", symbol.removeprefix("_ZN")
    while (length := re.match(r"\d+", rest)) is not None:
        begin, end = length.end(), length.end() + int(length[0])
        name, rest = rest[begin:end], rest[end:]
    return name, next((dtype for code, dtype in _DTYPES.items() if rest.startswith(code)), None)

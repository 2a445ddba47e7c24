"""The parity table on the Triton kernels without a GPU, in Triton's interpreter."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from kernel_cases import CASES

pytest.importorskip("triton", reason="Triton cannot be imported")

HERE = Path(__file__).resolve().parent
# not bfloat16, whose products the interpreter computes wrongly
SELECTION = "triton and cpu and (float32 or float16 or without_gradients) and not bfloat16"


def test_parity_in_the_interpreter() -> None:
    """Both tables, each in a process of its own: whether to interpret is settled when Triton is imported."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(HERE / "test_kernels.py"), "-k"]
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    runs = [
        subprocess.Popen(
            [*command, f"{SELECTION} and {table}"], env=environment, cwd=HERE.parent, stdout=subprocess.PIPE, text=True
        )
        for table in ("test_parity_of_large_shape_kernels", "not test_parity_of_large_shape_kernels")
    ]
    outputs = [run.communicate()[0] for run in runs]
    for run, output in zip(runs, outputs, strict=True):
        assert run.returncode == 0, output
        passed = re.search(r"(\d+) passed", output)
        assert passed is not None, output
        # every case in two dtypes
        assert int(passed[1]) >= 2 * len(CASES), output

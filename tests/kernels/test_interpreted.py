"""The parity tables on the Triton kernels without a GPU, in Triton's interpreter."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from kernel_cases import CASES, GENERAL_CASES

pytest.importorskip("triton", reason="Triton cannot be imported")

TESTS = Path(__file__).resolve().parents[1]
# not bfloat16, whose products the interpreter computes wrongly
SELECTION = (
    "triton and cpu and (float32 or float16 or without_gradients or no_gradients or drawn_general) and not bfloat16"
)
FAMILY = "test_parity_of_large_shape_kernels"


def interpret(selection: str, file: str, **environment: str) -> subprocess.Popen[str]:
    """Run tests in a process of its own: whether to interpret is settled when Triton is imported."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(TESTS / file), "-k", selection]
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1", **environment}
    return subprocess.Popen(command, env=environment, cwd=TESTS.parent, stdout=subprocess.PIPE, text=True)


def passed(run: subprocess.Popen[str]) -> int:
    """How many tests passed, where none failed."""
    output = run.communicate()[0]
    assert run.returncode == 0, output
    found = re.search(r"(\d+) passed", output)
    assert found is not None, output
    return int(found[1])


def test_parity_in_the_interpreter() -> None:
    """Every case in two dtypes, and those of the public face that the kernels for small shapes leave to others."""
    runs = [
        interpret(f"{SELECTION} and {table}", "test_kernels.py", DIFFRGEN_DRAWN_CALLS="8")
        for table in (FAMILY, f"not {FAMILY}")
    ]
    large, others = (passed(run) for run in runs)
    assert large >= 2 * len(CASES)
    assert others >= 2 * (len(CASES) + len(GENERAL_CASES))


@pytest.mark.parametrize("sums", ["in_order", "in_no_order"])
def test_large_logits_in_the_interpreter(sums: str) -> None:
    """Products summed in an order that depends on which factor comes first, as OpenBLAS does with AVX2, change nothing."""
    ordered = {}
    if sums == "in_no_order":
        if torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"):
            pytest.skip("this processor has no AVX2")
        ordered = {"OPENBLAS_CORETYPE": "Haswell"}
    assert passed(interpret("triton and cpu", "kernels/test_large_logits.py", **ordered)) >= 10

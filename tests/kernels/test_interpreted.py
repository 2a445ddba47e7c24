"""The parity tables on the Triton kernels without a GPU, in Triton's interpreter.

Each part is a process of its own: whether to interpret is settled when Triton is imported. Of each table it takes the cases
whose code differs; bfloat16 is left out, whose products the interpreter computes wrongly.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch
from kernel_backends import has_small_kernels
from kernel_cases import CASES, GENERAL_CASES, Case

pytest.importorskip("triton", reason="Triton cannot be imported")

TESTS = Path(__file__).resolve().parents[1]
DTYPES = {"float32": torch.float32, "float16": torch.float16}
# blocks of many rows and keys in one call: many_rows, many_patches and the bands have either
LARGE = [case for case in CASES if case.name != "many_patches_and_rows"]
GENERAL = [case for case in GENERAL_CASES if case.name != "many_views"]
# general cases that differ from others in sizes or values alone, not in what the kernels are compiled with; tried in float32
SAME_CODE = {
    *("centres_same", "absent_keys_shared", "absent_view", "row_weights", "rectangles_on_a_wide_grid"),
    *("rectangle_over_the_height", "huge_logits_absent_keys", "low_logits_centres_exclusive", "many_patches_general"),
}
OTHER_CODE = [case for case in GENERAL if case.name not in SAME_CODE]
# without gradients a mask that no alpha weighs is left out: cases with such masks, and one of each family without
PLAIN = {"fewer_rows_than_patches", "shared_projections", "exclusive_shared", "dim_40", "many_patches_shared"}
UNWEIGHTED = [case for case in CASES if case.weights != "soft"]
WITHOUT_GRADIENTS = [*UNWEIGHTED, *(case for case in CASES if case.name in PLAIN)]


def nodes(test: str, cases: Iterable[Case], end: str = "") -> list[str]:
    """The tests of these cases on the triton backend; end: of their names, behind the device."""
    return [f"{TESTS / 'test_kernels.py'}::{test}[{case.name}-triton-cpu{end}]" for case in cases]


def parity(cases: Iterable[Case], *, small: bool) -> list[str]:
    """The parity of plain cases in both dtypes, where they have kernels for small shapes or where they have none."""
    return [
        node
        for name, dtype in DTYPES.items()
        for node in nodes("test_parity", (x for x in cases if has_small_kernels(x, dtype) is small), f"-{name}")
    ]


def parity_of_large_shape_kernels() -> list[str]:
    """The parity of small shapes by the kernels for large ones, in both dtypes."""
    return [
        node
        for dtype in DTYPES.values()
        for node in nodes("test_parity_of_large_shape_kernels", (x for x in CASES if has_small_kernels(x, dtype)), f"-{dtype}")
    ]


PARTS = {
    "small_shapes": parity(CASES, small=True) + nodes("test_without_gradients", WITHOUT_GRADIENTS),
    "large_shapes": parity(LARGE, small=False) + nodes("test_without_gradients_of_large_shape_kernels", UNWEIGHTED),
    "large_shape_kernels": parity_of_large_shape_kernels(),
    "general": [
        *nodes("test_parity_of_general_calls", GENERAL, "-float32"),
        f"{TESTS / 'test_kernels.py'}::test_parity_of_drawn_general_calls[triton-cpu]",
    ],
    "general_without_gradients": nodes("test_parity_of_general_calls", OTHER_CODE, "-float16")
    + nodes("test_lse_and_no_gradients_of_general_calls", OTHER_CODE),
}


def passed(*arguments: str, **environment: str) -> int:
    """Run tests in the interpreter and return how many passed; none may fail."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1", **environment}
    run = subprocess.run(command, env=environment, cwd=TESTS.parent, stdout=subprocess.PIPE, text=True, check=False)
    assert run.returncode == 0, run.stdout
    found = re.search(r"(\d+) passed", run.stdout)
    assert found is not None, run.stdout
    return int(found[1])


@pytest.mark.parametrize("part", PARTS)
def test_parity_in_the_interpreter(part: str) -> None:
    assert passed(*PARTS[part], DIFFRGEN_DRAWN_CALLS="8") == len(PARTS[part])


def test_every_case_but_those_named_is_interpreted() -> None:
    interpreted = {node.partition("[")[2].partition("-")[0] for part in PARTS.values() for node in part}
    named = {case.name for case in (*CASES, *GENERAL_CASES)}
    assert named - interpreted == {"many_patches_and_rows", "many_views"}


@pytest.mark.parametrize("sums", ["in_order", "in_no_order"])
def test_large_logits_in_the_interpreter(sums: str) -> None:
    """Products summed in an order that depends on which factor comes first, as OpenBLAS does with AVX2, change nothing."""
    ordered = {}
    if sums == "in_no_order":
        if torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"):
            pytest.skip("this processor has no AVX2")
        ordered = {"OPENBLAS_CORETYPE": "Haswell"}
    file = TESTS / "kernels" / "test_large_logits.py"
    assert passed(str(file), "-k", "triton and cpu", **ordered) >= 10

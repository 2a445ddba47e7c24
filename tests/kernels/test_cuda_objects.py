"""What nvcc's assembler says of the CUDA kernels: every one is there, and none spills."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from diffrgen_kernels import cuda_objects
from diffrgen_kernels.cuda_objects import cuda_kernels


@pytest.fixture(autouse=True)
def sources(monkeypatch: pytest.MonkeyPatch) -> None:
    """The checkout's: an installed package has none beside it."""
    monkeypatch.setattr(cuda_objects, "SOURCES", Path(__file__).resolve().parents[2] / "csrc" / "cuda")


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="there is no nvcc in PATH")
def test_kernels_do_not_spill() -> None:
    records = cuda_kernels(90)
    names = {"routed_coattention", "routed_coattention_dq", "routed_coattention_dk_dv", "sum_rows"}
    dtypes = ("float32", "float16", "bfloat16")
    expected = {(name, dtype) for name in names for dtype in dtypes} | {("sum_deltas", None)}
    assert {(record["kernel"], record["dtype"]) for record in records} == expected
    assert len(records) == len(expected)
    assert all(record["arch"] == 90 and 16 <= record["registers"] <= 255 for record in records)
    assert [record for record in records if record["spill_stores"] or record["spill_loads"]] == []


def test_says_what_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    with pytest.raises(RuntimeError, match="no nvcc was found in CUDA_HOME"):
        cuda_kernels(90)
    monkeypatch.setattr(cuda_objects, "SOURCES", tmp_path / "absent")
    with pytest.raises(RuntimeError, match=r"CUDA sources are not at .*absent"):
        cuda_kernels(90)

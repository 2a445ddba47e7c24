"""Tuned configurations: the file that keeps them, and who reads it."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

pytest.importorskip("triton", reason="Triton cannot be imported")

from diffrgen_kernels import tune
from diffrgen_kernels.triton_backend import tuned
from diffrgen_kernels.triton_backend.configs import (
    BEFORE_HOPPER,
    NARROW,
    WIDE,
    Config,
    compiling_for,
    config_for,
    forced,
)
from diffrgen_kernels.triton_backend.tools import compile, tuning
from diffrgen_kernels.triton_backend.tools.tuning import candidates_of, tunable_kernels
from diffrgen_kernels.triton_backend.tools.variants import Problem

ROW = {"rows": 16, "keys": 128, "warps": 2, "stages": 5}
FIXED = NARROW["forward"][64]


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The file of a machine whose GPU is called H999."""
    monkeypatch.setenv("DIFFRGEN_TUNED", str(tmp_path / "folder" / "tuned.json"))
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    monkeypatch.setattr(tuned, "_device_name", lambda index: "H999")
    tuned.forget()
    yield tmp_path / "folder" / "tuned.json"
    tuned.forget()


def test_a_tuned_row_is_used(file: Path) -> None:
    tuned.write(file, "H999", {tuned.key_of("forward", torch.bfloat16, 64): ROW})
    assert config_for("forward", torch.bfloat16, 64) == Config(16, 128, 2, 5)
    assert config_for("forward", torch.float16, 64) == FIXED
    assert config_for("forward", torch.bfloat16, 63) == FIXED
    assert config_for("backward_keys", torch.bfloat16, 64) == NARROW["backward_keys"][64]


def test_rows_of_others_are_kept(file: Path) -> None:
    one, other = tuned.key_of("forward", torch.bfloat16, 64), tuned.key_of("forward", torch.bfloat16, 96)
    tuned.write(file, "A1", {one: ROW})
    tuned.write(file, "H999", {one: {**ROW, "stages": 1}})
    tuned.write(file, "H999", {other: ROW})
    assert json.loads(file.read_text()) == {"A1": {one: ROW}, "H999": {one: {**ROW, "stages": 1}, other: ROW}}
    assert [x.name for x in file.parent.iterdir()] == ["tuned.json"]
    assert config_for("forward", torch.bfloat16, 64) == Config(16, 128, 2, 1)


def test_the_file_is_read_once(file: Path) -> None:
    assert config_for("forward", torch.bfloat16, 64) == FIXED
    tuned.write(file, "H999", {tuned.key_of("forward", torch.bfloat16, 64): ROW})
    assert config_for("forward", torch.bfloat16, 64) == FIXED
    tuned.forget()
    assert config_for("forward", torch.bfloat16, 64) == Config(**ROW)


def test_another_device_and_no_device(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tuned.write(file, "H999", {tuned.key_of("forward", torch.bfloat16, 64): ROW})
    monkeypatch.setattr(tuned, "_device_name", lambda index: "A1")
    assert config_for("forward", torch.bfloat16, 64) == FIXED
    monkeypatch.setattr(tuned, "_device_name", lambda index: "H999")
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    assert config_for("forward", torch.bfloat16, 64) == FIXED


BROKEN = {
    "no_json": ("{", "expected JSON"),
    "list": ("[]", "expected an object of rows for each device"),
    "no_rows": ('{"H999": 3}', "expected an object of rows for each device"),
    "field_missing": ('{"H999": {"forward bfloat16 64": {"rows": 16}}}', r"forward bfloat16 64: expected .*stages"),
    "no_number": (json.dumps({"A1": {"x": {**ROW, "keys": "64"}}}), r"A1: x: expected whole numbers rows, keys"),
    "zero": (json.dumps({"A1": {"x": {**ROW, "warps": 0}}}), r"A1: x: expected whole numbers"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_ignored_aloud(name: str, file: Path) -> None:
    content, message = BROKEN[name]
    file.parent.mkdir()
    file.write_text(content)
    with pytest.warns(UserWarning, match=f"tuned configurations are ignored.*{message}"):
        assert config_for("forward", torch.bfloat16, 64) == FIXED
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert config_for("forward", torch.bfloat16, 64) == FIXED
    with pytest.raises(ValueError, match=message):
        tuned.write(file, "H999", {})
    assert file.read_text() == content


def test_rows_of_unknown_kernels_are_kept_and_not_used(file: Path) -> None:
    tuned.write(file, "H999", {"sideways bfloat16 64": ROW})
    tuned.write(file, "H999", {tuned.key_of("forward", torch.bfloat16, 64): ROW})
    assert config_for("forward", torch.bfloat16, 64) == Config(**ROW)
    assert "sideways bfloat16 64" in tuned.read(file)["H999"]
    with pytest.raises(KeyError, match="sidelong"):
        config_for("sidelong", torch.bfloat16, 64)


def test_an_empty_name_means_no_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIFFRGEN_TUNED", "")
    assert tuned.tuned_file() is None
    assert config_for("forward", torch.bfloat16, 64) == FIXED
    monkeypatch.delenv("DIFFRGEN_TUNED")
    monkeypatch.setenv("DIFFRGEN_CACHE", "/somewhere")
    assert tuned.tuned_file() == Path("/somewhere/tuned.json")


def test_a_forced_configuration_beats_a_tuned_one(file: Path) -> None:
    tuned.write(file, "H999", {tuned.key_of("forward", torch.bfloat16, 64): ROW})
    with forced("forward", Config(1, 2, 3, 4)):
        assert config_for("forward", torch.bfloat16, 64) == Config(1, 2, 3, 4)
        assert config_for("backward_keys", torch.bfloat16, 64) == NARROW["backward_keys"][64]
    assert config_for("forward", torch.bfloat16, 64) == Config(**ROW)


def test_architectures_differ(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BEFORE_HOPPER, "forward", {64: Config(1, 2, 3, 4), 256: Config(5, 6, 7, 8)})
    tuned.write(file, "H999", {tuned.key_of("forward", torch.bfloat16, 64): ROW})
    assert config_for("forward", torch.float16, 64) == FIXED
    with compiling_for(80):
        assert config_for("forward", torch.bfloat16, 64) == Config(1, 2, 3, 4)
        assert config_for("forward", torch.bfloat16, 65) == Config(5, 6, 7, 8)
        assert config_for("forward", torch.float32, 64) == WIDE["forward"][64]
    with compiling_for(90):
        assert config_for("forward", torch.bfloat16, 64) == FIXED
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (8, 9))
    assert config_for("forward", torch.float16, 64) == Config(1, 2, 3, 4)
    assert config_for("forward", torch.bfloat16, 64) == Config(**ROW)


@pytest.mark.parametrize("projections", ["own", "shared"])
def test_every_kernel_of_large_shapes_can_be_tuned(projections: str) -> None:
    kernels = tunable_kernels(Problem(projections=projections))
    prefix = "shared_" if projections == "shared" else ""
    assert kernels == [prefix + name for name in ("forward", "backward_queries", "backward_keys")]
    for kernel in kernels:
        candidates = candidates_of(kernel, torch.bfloat16, 64)
        assert candidates[0].config == config_for(kernel, torch.bfloat16, 64)
        assert len(set(candidates)) == len(candidates) > 30


def test_without_a_gpu(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert tune.main([]) == 1
    assert "PyTorch sees no GPU to time kernels on; --dry-run" in capsys.readouterr().err


def test_dry_run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(tuning, "NARROW_CHOICES", ((), (), (), ()))
    words = ["--dry-run", "--sides", "32", "--kernel", "backward_keys", "--jobs", "1"]
    assert tune.main(words) == 0
    head, row = capsys.readouterr().out.splitlines()
    assert head.split()[:6] == ["kernel", "rows", "keys", "warps", "stages", "registers"]
    assert row.split()[:5] == ["backward_keys", *map(str, vars(NARROW["backward_keys"][64]).values())]
    monkeypatch.setitem(compile.SHARED_LIMITS, 90, 1000)
    assert tune.main(words) == 0
    assert re.search(r"needs \d{5} bytes of shared memory, at most 1000", capsys.readouterr().out)

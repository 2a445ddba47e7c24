"""Fixtures that several test files share."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import tiny_training

# Files of `pytest -m quick`, by folder: each room once, and one training from the command to its reports.
QUICK = {
    "": "layers ranges",
    "commands": "rexrank",
    "docs": "pages readme",
    "evaluation": "columns statements",
    "experiments": "comparison variants",
    "images": "dicom encoder grey integrity transform",
    "labels": "gold rules words",
    "metrics": "bootstrap clinical conventions table",
    "model": "findings initial inputs prior row_routing variants",
    "phantom": "boxes prior rooms",
    "pipeline": "cached_images data_summary",
    "preparation": "iu mimic sections",
    "records": "annotation faults views",
    "reporting": "studies",
    "retrieval": "clip index info_nce neighbours priors",
    "text": "cleaning protocol",
    "training": "build calibration order waiting",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the quick tests."""
    tests = Path(__file__).parent
    quick = {tests / room / f"test_{name}.py" for room, names in QUICK.items() for name in names.split()}
    for item in items:
        if item.path in quick:
            item.add_marker(pytest.mark.quick)


@pytest.fixture(scope="session", autouse=True)
def cache_of_the_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep what the tests decode out of the user's own cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIFFRGEN_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session", autouse=True)
def no_waiting_for_the_disk() -> Iterator[None]:
    """Leave it to the system when it writes: a training puts a hundred files on the disk, which takes seconds of waiting.

    No test cuts the power. Processes of their own wait, and tests/training/test_checkpoints.py looks at what is waited for.
    """

    def fsync(file: int) -> None:
        os.fstat(file)  # raises OSError for what is no open file, as fsync does

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        yield


@contextmanager
def _java_hidden(path: str = str(Path(sys.executable).parent)) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", path)
        patch.delenv("JAVA_HOME", raising=False)
        yield


@pytest.fixture(scope="module")
def no_java() -> Iterator[None]:
    """Hide Java from a file's tests, which score without METEOR then: it has tests of its own and takes 10 s to start."""
    with _java_hidden():
        yield


@pytest.fixture
def no_java_once() -> Iterator[None]:
    """Hide Java from one test of a file whose others may use it: an empty PATH, for Java may lie beside Python."""
    with _java_hidden(path=""):
        yield


@pytest.fixture(scope="session")
def shared() -> Path:
    """Return the optional folder of real data: beside the checkout, or where DIFFRGEN_SHARED points."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("DIFFRGEN_SHARED", beside))
    if not folder.is_dir():
        pytest.skip("the optional folder of real data is absent (set DIFFRGEN_SHARED to it)")
    return folder


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run of a few steps on random studies, evaluated on its validation split; beside it lies its data/."""
    from diffrgen import evaluate, train

    folder = tmp_path_factory.mktemp("finished")
    data, run = tiny_training.write_studies(folder / "data"), folder / "run"
    with _java_hidden():
        assert train.main(tiny_training.arguments(data, run, "--max-steps", "6")) == 0
        assert evaluate.main([str(run), "--split", "val", "--generation.beams", "1"]) == 0
    return run


@pytest.fixture
def own_run(finished_run: Path, tmp_path: Path) -> Path:
    """Return a copy of the finished run that a test may change."""
    return Path(shutil.copytree(finished_run, tmp_path / "own-run"))


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run of twelve steps that takes earlier studies; its images are `studies/0.png` to `19.png` beside it."""
    folder = tmp_path_factory.mktemp("tiny")
    data = tiny_training.write_studies(folder / "studies")
    splits = json.loads(data.read_text())
    for number, study in enumerate(splits["train"]):
        study |= {"patient_id": f"patient-{number // 2}", "days": number % 2}
    data.write_text(json.dumps(splits))
    assert tiny_training.start(data, folder / "run") == 0
    return folder / "run"

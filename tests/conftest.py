"""Fixtures that several test files share."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import tiny_training


@pytest.fixture(scope="session")
def shared() -> Path:
    """Return the optional folder of real data: beside the checkout, or where DIFFRGEN_SHARED points."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("DIFFRGEN_SHARED", beside))
    if not folder.is_dir():
        pytest.skip("the optional folder of real data is absent (set DIFFRGEN_SHARED to it)")
    return folder


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run of twelve steps that takes earlier studies; its images are `studies/0.png` to `19.png` beside it."""
    folder = tmp_path_factory.mktemp("tiny")
    data = tiny_training.write_studies(folder / "studies")
    splits = json.loads(data.read_text())
    for number, study in enumerate(splits["train"]):
        study |= {"patient_id": f"patient-{number // 2}", "days": number % 2}
    data.write_text(json.dumps(splits))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIFFRGEN_CACHE", str(folder / "cache"))
        assert tiny_training.start(data, folder / "run") == 0
    return folder / "run"

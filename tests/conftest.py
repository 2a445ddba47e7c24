"""Fixtures that several test files share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


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
    """Return a run of two steps on random images: what it writes means nothing, but it writes."""
    from tiny_training import arguments, write_studies

    from diffrgen import train

    folder = tmp_path_factory.mktemp("tiny")
    assert train.main(arguments(write_studies(folder / "data"), folder / "run", "--max-steps", "2")) == 0
    return folder / "run"

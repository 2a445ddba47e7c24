"""Severity read by a linear classifier: exact where it is linear, no better than chance where it is not there."""

from __future__ import annotations

import pytest
import severity
import torch

from diffrgen.errors import DataError
from diffrgen.pipeline.run_folder import RunFolder
from diffrgen.records import Study

TURN = torch.tensor([[1.0, 0.0], [-0.5, 0.866], [-0.5, -0.866]])


def drawn(count: int, *, seed: int, told: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Classes, most of them the first, and features that point to them by `told`."""
    generator = torch.Generator().manual_seed(seed)
    classes = torch.multinomial(torch.tensor([0.5, 0.3, 0.2]), count, replacement=True, generator=generator)
    return told * TURN[classes] + 0.1 * torch.randn(count, 2, generator=generator), classes


def test_what_is_linear_is_read():
    found = severity.read_linearly(drawn(300, seed=0, told=1.0), drawn(200, seed=1, told=1.0))
    assert found["read"] == 1.0
    assert found["most_frequent"] == pytest.approx(0.5, abs=0.1)
    assert found["studies"] == 200


def test_what_is_not_there_is_read_no_better_than_by_chance():
    found = severity.read_linearly(drawn(300, seed=0, told=0.0), drawn(200, seed=1, told=0.0))
    assert found["read"] == pytest.approx(found["most_frequent"], abs=0.05)


def test_severities_by_hand():
    study = Study("a", "There is a small left-sided pneumothorax. Possible edema. The heart is moderately enlarged.", (), "test")
    assert severity.severities([study]) == [{"pneumothorax": 0, "cardiomegaly": 1}]


def test_a_run_on_other_data_is_refused(tiny_run):
    with pytest.raises(DataError, match="needed a run on the phantom"):
        severity.measure(RunFolder.open(tiny_run))

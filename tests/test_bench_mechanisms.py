"""What a trained network uses: nothing changes where studies are alike, and each change reaches its part alone."""

from __future__ import annotations

import shutil
from dataclasses import replace

import mechanisms
import pytest
import torch
from network import SETTINGS, make_batch, make_network

from diffrgen.errors import DataError
from diffrgen.model import DiffRGenForReportGeneration
from diffrgen.model.router import Router
from diffrgen.pipeline.dataset import Example
from diffrgen.pipeline.run_folder import RunFolder

SETTING = replace(SETTINGS["quick"], studies=4)


@pytest.fixture
def model() -> DiffRGenForReportGeneration:
    return make_network(SETTING, "reference").eval()


@pytest.fixture
def example() -> Example:
    torch.manual_seed(1)
    return make_batch(SETTING, "cpu")


def rows_of(example: Example) -> list[Example]:
    view = {"pixel_values": example["pixel_values"][:, None], "view_kinds": torch.zeros(SETTING.studies, 1, dtype=int)}
    return [{name: rows[row] for name, rows in {**example, **view}.items()} for row in range(SETTING.studies)]


def test_losses_of_the_studies_are_those_of_the_network(model, example, monkeypatch):
    # Untrained routers route all studies alike; these send the first half of a batch another way than the second.
    ways = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]).repeat_interleave(SETTING.studies // 2, dim=0)
    monkeypatch.setattr(Router, "forward", lambda router, *_: ways[:, : router.mlp[-1].out_features])
    found = mechanisms.study_losses(model, rows_of(example), SETTING.studies)
    with torch.no_grad():
        output = model(**example)
    # Reports of one length: the mean over studies is that over tokens.
    assert found["nothing"].mean(0) == pytest.approx([output.language_loss.item(), output.disease_loss.item()], rel=1e-5)
    for name, losses in found.items():
        changed = abs(losses - found["nothing"]).max(0) > 1e-6
        # Only image and retrieved reports, and what is made of both, reach the classifier.
        assert changed[1] == (name != "nothing" and "memory" not in name), name
        assert changed[0] == (name != "nothing"), name


def test_nothing_changes_where_all_studies_are_alike(model, example):
    alike = {name: rows[:1].expand(SETTING.studies, *rows.shape[1:]) for name, rows in example.items()}
    found = mechanisms.study_losses(model, rows_of(alike), SETTING.studies)
    for name in found:
        if name not in ("even routing", "no window"):
            assert abs(found[name] - found["nothing"]).max() < 1e-5, name


def test_the_memory_is_exchanged_part_by_part(model, example):
    with torch.no_grad():
        whole = mechanisms.encode(model, example).last_hidden_state
        (gh, gw), rows = model.image_encoder.grid(SETTING.image_size, SETTING.image_size), whole.shape[1]
        patches = gh * gw
        similar = (rows - patches) // 2
        bounds = [0, patches, patches + similar, rows]
        for part in range(3):
            exchanged = mechanisms.with_other_rows(part)(model, example).last_hidden_state
            own = torch.ones(rows, dtype=torch.bool)
            own[bounds[part] : bounds[part + 1]] = False
            torch.testing.assert_close(exchanged[:, own], whole[:, own])
            torch.testing.assert_close(exchanged[:, ~own], whole[[2, 3, 0, 1]][:, ~own])


def test_a_run_is_measured(tiny_run, tmp_path):
    run = RunFolder.open(shutil.copytree(tiny_run, tmp_path / "run"))
    measured = mechanisms.measure(run, "val", 4)
    assert measured["studies"] > 0
    assert set(measured["added"]) == set(mechanisms.CHANGES) - {"nothing"}
    for terms in measured["added"].values():
        for term in terms.values():
            low, high = term["interval"]
            assert low <= term["mean"] <= high
    with pytest.raises(DataError, match="'test', got none"):
        mechanisms.measure(run, "test", 4)

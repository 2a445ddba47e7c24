"""What a trained network uses: nothing changes where studies are alike, and each change reaches its part alone."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from network import SETTINGS, make_batch, make_network

from diffrgen.errors import DataError
from diffrgen.explanation import SeenFinding
from diffrgen.labels import CLASSES, DISEASES
from diffrgen.mechanisms import changes
from diffrgen.mechanisms import localisation as localisation_module
from diffrgen.mechanisms.__main__ import main
from diffrgen.mechanisms.localisation import cropped, localisation
from diffrgen.mechanisms.losses import study_losses, token_losses
from diffrgen.mechanisms.measure import MechanismOptions, mean_of_tokens, measure
from diffrgen.model import DiffRGenForReportGeneration
from diffrgen.model.router import Router
from diffrgen.phantom import Box, PhantomOptions, finding_boxes
from diffrgen.phantom.patients.patient import study_counts
from diffrgen.pipeline.dataset import Example
from diffrgen.pipeline.options import ImageOptions

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


def losses_of(model: DiffRGenForReportGeneration, rows: list[Example]) -> dict:
    classes = np.arange(model.config.decoder.vocab_size) % len(CLASSES)
    return study_losses(model, rows, classes, batch_size=SETTING.studies)


def test_losses_of_the_studies_are_those_of_the_network(model, example, monkeypatch):
    # Untrained routers route all studies alike; these send the first half of a batch another way than the second.
    ways = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]).repeat_interleave(SETTING.studies // 2, dim=0)
    monkeypatch.setattr(Router, "forward", lambda router, *_: ways[:, : router.mlp[-1].out_features])
    found = losses_of(model, rows_of(example))
    with torch.no_grad():
        output = model(**example)
    # Reports of one length: the mean over studies is that over tokens.
    nothing = found["nothing"]
    assert nothing.language.mean() == pytest.approx(output.language_loss.item(), rel=1e-5)
    assert nothing.disease.mean() == pytest.approx(output.disease_loss.item(), rel=1e-5)
    for name, losses in found.items():
        # Only image and retrieved reports, and what is made of both, reach the classifier.
        changed = abs(losses.disease - nothing.disease).max() > 1e-6
        assert changed == (name != "nothing" and "memory" not in name), name
        assert (abs(losses.language - nothing.language).max() > 1e-6) == (name != "nothing"), name


def test_nothing_changes_where_all_studies_are_alike(model, example):
    alike = {name: rows[:1].expand(SETTING.studies, *rows.shape[1:]) for name, rows in example.items()}
    found = losses_of(model, rows_of(alike))
    for name in found:
        if name not in ("even routing", "no window"):
            assert abs(found[name].language - found["nothing"].language).max() < 1e-5, name


def test_the_memory_is_exchanged_part_by_part(model, example):
    with torch.no_grad():
        whole = changes.encode(model, example).last_hidden_state
        (gh, gw), rows = model.image_encoder.grid(SETTING.image_size, SETTING.image_size), whole.shape[1]
        patches = gh * gw
        similar = (rows - patches) // 2
        bounds = [0, patches, patches + similar, rows]
        for part in range(3):
            exchanged = changes.with_other_rows(part)(model, example).last_hidden_state
            own = torch.ones(rows, dtype=torch.bool)
            own[bounds[part] : bounds[part + 1]] = False
            torch.testing.assert_close(exchanged[:, own], whole[:, own])
            torch.testing.assert_close(exchanged[:, ~own], whole[[2, 3, 0, 1]][:, ~own])


def test_losses_of_words_by_hand():
    """Tokens 0 and 1 are of the first class, 2 of the second; p = (.5, .25, .25), then (.1, .3, .6)."""
    logits = torch.tensor([[[0.5, 0.25, 0.25], [0.1, 0.3, 0.6], [1.0, 1.0, 1.0]]]).log()
    members = torch.tensor([[True, True, False], [False, False, True]])
    word, which, count = token_losses(logits, torch.tensor([[1, 2, -100]]), members)
    torch.testing.assert_close(word, -torch.tensor([[0.25, 0.6]]).log())
    torch.testing.assert_close(which, -torch.tensor([[0.25 / 0.75, 1.0]]).log())
    assert count.tolist() == [[1, 1]]


def test_the_mean_over_tokens_has_the_error_of_studies():
    """Two studies of 1 and 3 tokens with sums 4 and 4: mean 2, each 2 away from it: sqrt(2 (2^2 + 2^2)) / 4 = 1."""
    assert mean_of_tokens(np.array([4.0, 4.0, 0.0]), np.array([1.0, 3.0, 0.0])) == pytest.approx((2.0, 1.0))
    assert mean_of_tokens(np.zeros(2), np.zeros(2)) == (None, None)
    assert mean_of_tokens(np.array([3.0, 0.0]), np.array([2.0, 0.0])) == (1.5, None)
    # Studies whose tokens are all alike: the error of a mean of independent tokens.
    draw = np.random.default_rng(0).normal(size=500)
    mean, error = mean_of_tokens(draw, np.ones(500))
    assert error == pytest.approx(draw.std(ddof=1) / 500**0.5)
    assert mean == pytest.approx(draw.mean())


@pytest.mark.parametrize(
    ("option", "change", "field"),
    [("finding_queries", changes.OTHER_ROWS, "prompt_rows"), ("severities", changes.OTHER_SEVERITIES, "severities")],
)
def test_a_part_of_the_prompt_is_exchanged_where_there_is_one(example, option, change, field):
    model = make_network(SETTING, "reference").eval()
    assert change not in changes.changes_of(model)
    model = DiffRGenForReportGeneration(type(model.config)(**{**model.config.to_dict(), option: True})).eval()
    with torch.no_grad():
        own, other = changes.encode(model, example), changes.changes_of(model)[change](model, example)
    assert torch.equal(other[field], own[field][[2, 3, 0, 1]])
    assert torch.equal(other.last_hidden_state, own.last_hidden_state)


def test_a_run_is_measured(tiny_run, tmp_path, capsys):
    run = shutil.copytree(tiny_run, tmp_path / "run")
    output = tmp_path / "mechanisms.json"
    assert main([str(run), "--split", "val", "--batch-size", "4", "--output", str(output)]) == 0
    assert "loss increase in nats" in capsys.readouterr().out
    measured = json.loads(output.read_text())
    assert measured["studies"] > 0
    assert set(measured["added"]) == set(changes.CHANGES) - {"nothing", changes.OTHER_ROWS, changes.OTHER_SEVERITIES}
    words = measured["words"]
    total = sum(terms["tokens"] * (terms["word"]["mean"] or 0.0) for terms in words.values())
    assert total / sum(terms["tokens"] for terms in words.values()) == pytest.approx(measured["language_loss"], rel=0.1)
    for added in measured["added"].values():
        for term in ("language_loss", "disease_loss"):
            low, high = added[term]["interval"]
            assert low <= added[term]["mean"] <= high
        assert set(added["words"]) == set(CLASSES)
    with pytest.raises(DataError, match="two studies in the split 'test', got 0"):
        measure(MechanismOptions(run, split="test"))
    with pytest.raises(DataError, match="--batch-size: expected a whole number of at least 2, got 1"):
        MechanismOptions(run, batch_size=1)


def test_a_box_is_cropped_as_the_network_crops():
    """Of 120 pixels the network sees 4 to 116: 10 to 64 are 6 to 60 of its 112."""
    image = ImageOptions(size=112, resize=120)
    shown = cropped(Box(10 / 120, 4 / 120, 64 / 120, 1.0), image)
    assert shown == pytest.approx((6 / 112, 0.0, 60 / 112, 116 / 112))


@pytest.mark.parametrize("where", ["inside", "outside"])
def test_findings_are_counted_as_seen_where_they_are(monkeypatch, model, example, where):
    """Attention to the centre of each finding's own box, or to a corner of the image."""
    options, image = PhantomOptions(studies=SETTING.studies, seed=4), ImageOptions(size=128, resize=128)
    ids = [f"p{index:06d}s{number}" for index, count in enumerate(study_counts(options)) for number in range(count)]
    boxes = [finding_boxes(options, name) for name in ids]

    def seen(weights, grid):
        del weights, grid
        own = boxes[len(places) % len(ids)]
        places.append(own)
        centres = {name: ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2) for name, box in own.items()}
        corner = (0.0, 0.0)
        return tuple(
            SeenFinding(name, np.ones((1, 1)), centres.get(name, corner) if where == "inside" else corner)
            for name in DISEASES
        )

    places: list[dict] = []
    monkeypatch.setattr(localisation_module, "attention_to_images", lambda *_: torch.zeros(SETTING.studies, 14, 4))
    monkeypatch.setattr(localisation_module, "seen_findings", seen)
    studies = [SimpleNamespace(id=name) for name in ids]
    found = localisation(model, rows_of(example), studies, phantom=options, image=image, batch_size=SETTING.studies)
    assert found["studies"] == sum(map(len, boxes)) > 2
    assert found["inside"] == (1.0 if where == "inside" else 0.0)
    assert found["another"] < 1.0
    assert sum(own["studies"] for own in found["findings"].values()) == found["studies"]

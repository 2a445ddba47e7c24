"""A run with severities from its training to its reports: what examples hold, what predictions say, what a start brings."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tiny_training import arguments, write_studies

from diffrgen import evaluate, train
from diffrgen.labels import FINDINGS, Severity, State
from diffrgen.pipeline.run_folder import RunFolder
from diffrgen.pipeline.source import load_source
from diffrgen.reporting.writer import named_severities


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Write studies whose report calls every positive finding mild, moderate or severe, by the number of the study."""
    path = write_studies(tmp_path_factory.mktemp("severities") / "studies")
    splits = json.loads(path.read_text())
    for study in (*splits["train"], *splits["val"]):
        word = ("mild", "moderate", "severe")[int(study["id"]) % 3]
        sentences = study["report"].split(" . ")
        study["report"] = " . ".join(each if each.startswith("no ") else f"{word} {each}" for each in sentences)
    path.write_text(json.dumps(splits))
    return path


@pytest.fixture(scope="module")
def run(data) -> Path:
    folder = data.parent.parent / "run"
    assert train.main(arguments(data, folder, "--model.severities", "--calibrate-prompts", "--max-steps", "6")) == 0
    return folder


def test_examples_hold_the_severities_that_their_reports_state(run):
    folder = RunFolder(run)
    settings, model = folder.settings(), folder.model()
    source = load_source(settings.data, settings.phantom)
    dataset = folder.dataset(model.config, settings, source, source.splits.val, key="val")
    for row, study in enumerate(source.splits.val):
        expected = torch.zeros(len(FINDINGS), dtype=torch.int64)
        for place, name in enumerate(FINDINGS[:-1]):
            # A report states but the first of its findings, and calls "no finding" and devices neither mild nor severe.
            if study.labels[place] == State.POSITIVE and f" {name} " in f" {study.report} ":
                expected[place] = 1 + int(study.id) % 3
        assert torch.equal(dataset[row]["severities"], expected)


def test_predictions_say_the_severity_of_positive_findings_alone(run, tmp_path):
    output = tmp_path / "evaluation"
    assert evaluate.main([str(run), "--split", "val", "--output", str(output), "--no-baselines"]) == 0
    predictions = [json.loads(line) for line in (output / "predictions.jsonl").read_text().splitlines()]
    assert all(set(p["severities"].values()) <= {"mild", "moderate", "severe"} for p in predictions)
    assert all(p["states"][name] == "positive" for p in predictions for name in p["severities"])


def test_a_finding_without_a_severity_is_not_named():
    severities = torch.zeros(len(FINDINGS), dtype=torch.int64)
    severities[1], severities[9] = int(Severity.SEVERE), int(Severity.MILD)
    assert named_severities(severities) == {"cardiomegaly": "severe", "pleural effusion": "mild"}

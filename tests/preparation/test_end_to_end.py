"""Miniature archives from the download's layout to scored reports: prepare, train, evaluate, as a user calls them."""

from __future__ import annotations

import json
import math
import shlex
from pathlib import Path
from typing import NamedTuple

import pytest
from iu_archive import write_openi
from mimic_archive import write_archive
from small_mimic import LABELLED, TEXTS, draw_chest, mimic_content

from diffrgen import evaluate as evaluate_command
from diffrgen import prepare as prepare_command
from diffrgen import train as train_command
from diffrgen.labels import FINDINGS
from diffrgen.pipeline.run_folder import RunFolder

pytestmark = pytest.mark.usefixtures("no_java")

NETWORK = [
    *("--image.size", "64", "--image.resize", "68", "--optimiser.batch-size", "4", "--max-steps", "4"),
    *("--retriever.max-steps", "2", "--retriever.batch-size", "4", "--retriever.neighbours", "3"),
    *("--text.max-tokens", "16", "--generation.beams", "1", "--text.min-frequency", "1"),
]


class Trained(NamedTuple):
    """What the three commands left, each in its folder."""

    prepared: Path
    run: Path
    evaluation: Path


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Trained:
    folder = tmp_path_factory.mktemp("mimic")
    archive = write_archive(folder / "archive", content=mimic_content(), picture=lambda row: draw_chest(row.dicom))
    prepared, run, evaluation = folder / "prepared", folder / "run", folder / "evaluation"
    assert prepare_command.main(["mimic-cxr", str(archive), str(prepared), "--check-images"]) == 0
    images = archive / json.loads((prepared / "summary.json").read_text(encoding="utf-8"))["files"]["images"]
    data = ["--data", str(prepared / "annotation.json"), "--images", str(images)]
    # The reference operator needs no compiler.
    assert train_command.main([*data, *NETWORK, "--output", str(run), "--no-fused-kernels"]) == 0
    assert evaluate_command.main([str(run), "--output", str(evaluation), "--generation.beams", "1"]) == 0
    return Trained(prepared, run, evaluation)


def load_lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_splits_are_the_archives_and_a_study_without_findings_is_counted(trained):
    annotation = json.loads((trained.prepared / "annotation.json").read_text(encoding="utf-8"))
    assert {split: len(records) for split, records in annotation.items()} == {"train": 20, "val": 4, "test": 6}
    assert {record["study_id"] for record in annotation["test"]} == set(LABELLED)
    summary = json.loads((trained.prepared / "summary.json").read_text(encoding="utf-8"))
    assert summary["read"] == {"images": 34, "studies": 17}
    assert [summary["kept"][split]["patients"] for split in ("train", "val", "test")] == [10, 2, 3]
    reason = "report without a section of findings, impression only"
    assert summary["dropped"] == {
        "studies": {reason: {"count": 2, "examples": ["s50000098", "s51000099"]}},
        "images": {},
    }
    assert len(RunFolder(trained.run).index()) == 20


def test_references_are_the_archives_findings_cleaned(trained):
    predictions = load_lines(trained.evaluation / "predictions.jsonl")
    expected = {
        f"{51000000 + number}-{view}": TEXTS[number % len(TEXTS)].cleaned
        for number in (12, 13, 14)
        for view in ("pa", "lateral")
    }
    assert {record["id"]: record["reference"] for record in predictions} == expected
    retrieved = {neighbour["report"] for record in predictions for neighbour in record["neighbours"]}
    assert retrieved <= {text.cleaned for text in TEXTS}


def test_labels_are_those_of_the_table(trained):
    metrics = json.loads((trained.evaluation / "metrics.json").read_text(encoding="utf-8"))
    for scores in metrics.values():
        support = {score["finding"]: score["support"] for score in scores["clinical_14"]["per_finding"]}
        # Two studies of two images; an uncertain finding is not a positive one.
        assert support == {name: 4 if name == "fracture" else 0 for name in FINDINGS}


def test_scores_are_numbers(trained):
    metrics = json.loads((trained.evaluation / "metrics.json").read_text(encoding="utf-8"))
    assert list(metrics) == ["DiffRGenNet", "blind: most frequent report", "blind: random training report"]
    for scores in metrics.values():
        assert set(scores["nlg"]) == {"bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l", "cider"}
        assert all(math.isfinite(value) and 0 <= value <= 10 for value in scores["nlg"].values())
        assert all(0 <= value <= 1 for value in scores["clinical_14"]["example"].values())
        for name, (low, high) in scores["nlg_intervals"].items():
            assert low <= scores["nlg"][name] <= high
        low, high = scores["clinical_14"]["intervals"]["f1"]
        assert low <= scores["clinical_14"]["example"]["f1"] <= high
    tables = (trained.evaluation / "table.md").read_text(encoding="utf-8")
    assert tables.count("| DiffRGenNet |") == 2
    assert "95 % intervals (bootstrap over studies):" in tables
    # The first text, 11 words, is the most frequent in training. 11, 3 and 1 of them are in the three references.
    assert metrics["blind: most frequent report"]["nlg"]["bleu_1"] == pytest.approx(15 / 33)
    said = load_lines(trained.evaluation / "predictions.jsonl")
    assert all(math.isfinite(value) for record in said for value in record["positive_probability"].values())


def test_iu_x_ray_is_evaluated_by_the_same_run(trained, tmp_path, capsys):
    """Open-i's XML, whole, by the command that the preparer prints."""
    studies = tuple(
        (number, text.raw, "Not to be written.", (f"CXR{number}_IM-{number:04d}-1001",))
        for number, text in enumerate(TEXTS, start=1)
    )
    without = (9, "", "No disease.", ("CXR9_IM-0009-1001",))
    archive = write_openi(tmp_path / "archive", studies=(*studies, without), picture=draw_chest)
    assert prepare_command.main(["iu-xray", str(archive), str(tmp_path / "iu"), "--split", "whole"]) == 0
    summary = json.loads((tmp_path / "iu" / "summary.json").read_text(encoding="utf-8"))
    assert summary["dropped"]["studies"] == {"report without findings": {"count": 1, "examples": ["CXR9"]}}
    assert summary["kept"]["test"] == {"entries": 4, "studies": 4, "images": 4, "patients": 4}
    printed = shlex.split(capsys.readouterr().out.splitlines()[-1].partition("RUN ")[2])
    output = ["--output", str(tmp_path / "scored"), "--generation.beams", "1"]
    assert evaluate_command.main([str(trained.run), *printed, *output]) == 0

    predictions = load_lines(tmp_path / "scored" / "predictions.jsonl")
    assert [record["reference"] for record in predictions] == [text.cleaned for text in TEXTS]
    scores = json.loads((tmp_path / "scored" / "metrics.json").read_text(encoding="utf-8"))["DiffRGenNet"]
    # No table of labels comes with IU X-Ray: the rules read them out of the references.
    support = {score["finding"]: score["support"] for score in scores["clinical_14"]["per_finding"]}
    assert {name for name in support if support[name]} == {
        *("cardiomegaly", "pleural effusion", "no finding", "support devices")
    }
    assert all(math.isfinite(value) for value in scores["nlg"].values())

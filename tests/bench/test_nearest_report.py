"""The nearest report by text, by hand and end to end."""

from __future__ import annotations

import json
import sys

import nearest_report
import numpy as np
import pytest

TRAINING = ["the heart is large", "the lungs are clear", "the effusion is large"]


def test_vectors_by_hand():
    # Of three documents "the" is in all (log 4/4 = 0), "large" in two (log 4/3), "heart" in one (log 4/2).
    rows = nearest_report.tf_idf(["the heart heart large", "the"], ["heart", "large", "the"], np.array([1, 2, 3]), 3)
    weights = np.array([2 * np.log(2), np.log(4 / 3)])
    np.testing.assert_allclose(rows[0], [*weights / np.linalg.norm(weights), 0.0], rtol=1e-6)
    assert not rows[1].any()


def test_nearest_are_those_of_shared_rare_words():
    found = nearest_report.nearest(TRAINING, ["large effusion", "lungs"], 2)
    assert found.tolist() == [[2, 0], [1, 0]]


def test_coverage_by_hand():
    trained, true = np.zeros((2, 14), dtype=np.int64), np.zeros((2, 14), dtype=np.int64)
    true[0, [1, 9]] = true[1, 4] = 1
    trained[0, 1] = trained[1, 9] = 1
    trained[1, 4] = 3  # a doubt is no positive finding
    neighbours = np.array([[0, 1], [0, 1]])
    found = nearest_report.covered(neighbours, trained, true)
    assert found == pytest.approx({"of the first 1": 1 / 3, "of the first 5": 2 / 3, "of the first 21": 2 / 3})


def test_script_scores_neighbours_beside_baselines(no_java_once, tmp_path, monkeypatch, capsys):
    records = {
        split: [{"id": f"{split}{i}", "report": text, "image_path": "x.png"} for i, text in enumerate(texts)]
        for split, texts in (("train", TRAINING), ("test", ["the lungs are clear", "the heart is very large"]))
    }
    (tmp_path / "annotation.json").write_text(json.dumps(records))
    output = tmp_path / "nearest.json"
    monkeypatch.setattr(sys, "argv", ["nearest_report.py", str(tmp_path / "annotation.json"), "--output", str(output)])
    with pytest.warns(RuntimeWarning, match="METEOR"):
        nearest_report.main()
    assert "3 training and 2 test reports" in capsys.readouterr().out
    content = json.loads(output.read_text())
    assert content["covered"]["of the first 1"] == 1.0
    assert content["nearest training report (its text known)"]["nlg"]["bleu_1"] > 0.8

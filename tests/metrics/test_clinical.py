"""clinical_scores and report_diversity against a hand-computed table and plain loops."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest

from diffrgen.metrics import clinical_scores, report_diversity

FINDINGS = ("edema", "fracture", "nodule")
# Study by study; 0 blank, 1 positive, 2 negative, 3 uncertain.
PREDICTED = np.array([[1, 0, 0], [1, 1, 2], [0, 3, 0], [2, 0, 0]])
TRUTH = np.array([[1, 0, 0], [0, 1, 3], [1, 1, 0], [0, 2, 0]])


def test_hand_computed_table():
    scores = clinical_scores(PREDICTED, TRUTH, findings=FINDINGS)
    # True positives: edema 1, fracture 1; false positive: edema 1; false negatives: edema 1, fracture 1.
    assert scores.micro.precision == pytest.approx(2 / 3)
    assert scores.micro.recall == pytest.approx(2 / 4)
    assert scores.micro.f1 == pytest.approx(4 / 7)
    edema, fracture, nodule = scores.per_finding
    assert (edema.support, edema.predicted, edema.precision, edema.recall, edema.f1) == (2, 2, 0.5, 0.5, 0.5)
    assert (fracture.support, fracture.predicted) == (2, 1)
    assert (fracture.precision, fracture.recall, fracture.f1) == (1.0, 0.5, pytest.approx(2 / 3))
    assert (nodule.support, nodule.precision, nodule.recall, nodule.f1) == (0, None, None, None)
    assert scores.macro_f1 == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert scores.macro_findings == 2
    # Per study: (1, 1, 1), (1/2, 1, 2/3), (0/0, 0, 0), (0/0, 0/0, 0/0) with 0/0 = 0.
    assert scores.example.precision == pytest.approx(1.5 / 4)
    assert scores.example.recall == pytest.approx(2 / 4)
    assert scores.example.f1 == pytest.approx((1 + 2 / 3) / 4)
    assert scores.studies == 4


def plain_scores(predicted, truth):
    """Return micro-F1, macro-F1 and the example-based triple by plain loops."""
    columns, rows = range(len(truth[0])), range(len(truth))
    cells = {(i, c): (predicted[i][c] == 1, truth[i][c] == 1) for i in rows for c in columns}

    def count(keys, said, true):
        return sum(cells[key] == (said, true) for key in keys)

    def f1_of(keys):
        hits, wrong = count(keys, True, True), count(keys, True, False) + count(keys, False, True)
        return 2 * hits / (2 * hits + wrong) if hits + wrong else None

    per_finding = [f1_of([(i, c) for i in rows]) for c in columns]
    defined = [value for value in per_finding if value is not None]
    sums = [0.0, 0.0, 0.0]
    for i in rows:
        keys = [(i, c) for c in columns]
        hits, said = count(keys, True, True), count(keys, True, True) + count(keys, True, False)
        true = hits + count(keys, False, True)
        sums[0] += hits / said if said else 0.0
        sums[1] += hits / true if true else 0.0
        sums[2] += f1_of(keys) or 0.0
    return f1_of(list(cells)), sum(defined) / len(defined), [value / len(truth) for value in sums]


@pytest.mark.parametrize("seed", range(5))
def test_against_plain_loops(seed):
    rng = random.Random(seed)
    predicted, truth = ([[rng.choice((0, 0, 1, 2, 3)) for _ in range(14)] for _ in range(40)] for _ in range(2))
    for row in predicted, truth:
        for states in row:
            states[13] = 0
    scores = clinical_scores(np.array(predicted), np.array(truth), findings=[f"f{i}" for i in range(14)])
    micro, macro, example = plain_scores(predicted, truth)
    assert scores.micro.f1 == pytest.approx(micro)
    assert scores.macro_f1 == pytest.approx(macro)
    assert [scores.example.precision, scores.example.recall, scores.example.f1] == pytest.approx(example)
    assert scores.per_finding[13].f1 is None


def test_nothing_positive_is_undefined_but_example_based_zero():
    scores = clinical_scores(np.zeros((3, 3), int), np.full((3, 3), 2), findings=FINDINGS)
    assert (scores.micro.precision, scores.micro.recall, scores.micro.f1) == (None, None, None)
    assert scores.macro_f1 is None
    assert scores.micro_f1_interval is None
    assert scores.example.f1 == 0.0


def test_interval_is_deterministic_and_of_the_right_width():
    # Half of the studies hit and half of them miss one positive: F1 = 2k / (2k + n - k) for k ~ Binomial(n, 1/2) hits.
    n = 400
    truth = np.ones((n, 1), int)
    predicted = np.arange(n)[:, None] % 2
    first, second = (clinical_scores(predicted, truth, findings=["edema"]) for _ in range(2))
    assert first == second
    draws = np.random.default_rng(1).binomial(n, 0.5, size=100_000)
    expected = np.percentile(2 * draws / (draws + n), [2.5, 97.5])
    assert first.micro_f1_interval == pytest.approx(tuple(expected), abs=0.006)
    assert first.micro_f1_interval[0] < first.micro.f1 < first.micro_f1_interval[1]
    assert clinical_scores(predicted, truth, findings=["edema"], seed=1) != first
    assert clinical_scores(predicted[:1], truth[:1], findings=["edema"]).micro_f1_interval is None


def test_to_dict_is_json():
    scores = clinical_scores(PREDICTED, TRUTH, findings=FINDINGS).to_dict()
    assert json.loads(json.dumps(scores))["per_finding"][1]["finding"] == "fracture"
    assert scores["micro"]["f1"] == pytest.approx(4 / 7)


@pytest.mark.parametrize(
    ("predicted", "truth", "message"),
    [
        (PREDICTED[:2], TRUTH, r"got \(2, 3\) and \(4, 3\)"),
        (PREDICTED[:, :2], TRUTH[:, :2], r"shape \(n, 3\)"),
        (PREDICTED[:0], TRUTH[:0], "at least one study"),
        (PREDICTED + 3, TRUTH, r"in predicted, got \[4"),
        (PREDICTED, TRUTH - 1, r"in truth, got \[-1\]"),
    ],
)
def test_wrong_input(predicted, truth, message):
    with pytest.raises(ValueError, match=message):
        clinical_scores(predicted, truth, findings=FINDINGS)


def test_diversity():
    diversity = report_diversity(["no effusion .", "no  effusion .", "", "large heart and no edema ."])
    assert diversity.to_dict() == {
        "studies": 4,
        "distinct": 3,
        "distinct_ratio": 0.75,
        "mean_words": 3.0,
        "vocabulary": 7,
    }
    with pytest.raises(ValueError, match="empty list"):
        report_diversity([])

"""95 % intervals against scores computed anew for each resample, and against a case small enough for the head."""

from __future__ import annotations

import random
import shutil
import warnings
from contextlib import nullcontext

import numpy as np
import pytest
from pycocoevalcap.cider.cider import Cider

from diffrgen.metrics import clinical_scores, corpus_scores, interval_row, markdown_table, meteor, score_corpus
from diffrgen.metrics.bootstrap import bootstrap_interval, mean_interval
from diffrgen.metrics.meteor import meteor_score

java = pytest.mark.skipif(shutil.which("java") is None, reason="METEOR requires a Java runtime")
WORDS = ["the", "heart", "is", "large", "no", "edema", "or", "effusion", "seen", ".", "lungs", "clear"]
RESAMPLES, SEED = 12, 3


@pytest.fixture
def no_meteor(no_java_once):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        yield


@pytest.fixture
def texts() -> tuple[list[str], list[str]]:
    """Nine studies; the first hypothesis is empty, the second a copy."""
    rng = random.Random(0)
    said, true = ([" ".join(rng.choices(WORDS, k=rng.randint(3, 12))) for _ in range(9)] for _ in range(2))
    return ["", true[1], *said[2:]], true


def resampled(count: int) -> np.ndarray:
    """The studies that each resample draws, (RESAMPLES, count)."""
    rng = np.random.default_rng(SEED)
    return np.array([rng.integers(count, size=count) for _ in range(RESAMPLES)])


def percentiles(values: list[float]) -> tuple[float, ...]:
    return tuple(np.percentile(values, [2.5, 97.5]))


def test_a_mean_of_two_studies_by_hand():
    """Of 0 and 1 a resample has the mean 0, 1/2 or 1, the outer ones in a quarter of the resamples each."""
    assert mean_interval(np.array([0.0, 1.0])) == (0.0, 1.0)
    assert mean_interval(np.array([0.25, 0.25])) == (0.25, 0.25)
    assert mean_interval(np.array([0.5])) is None
    assert mean_interval(np.array([0.0, 1.0]), resamples=0) is None


def test_resamples_without_a_score_are_passed_over():
    """Of the studies (1, 1) and (0, 0), sums (0, 0) have no quotient, all others have 1."""
    numbers = np.array([[1, 1], [0, 0]])
    with np.errstate(invalid="ignore"):
        assert bootstrap_interval(numbers, lambda sums: sums[:, 0] / sums[:, 1]) == (1.0, 1.0)
        assert bootstrap_interval(0 * numbers, lambda sums: sums[:, 0] / sums[:, 1]) is None


def test_resamples_do_not_depend_on_how_many_are_made_at_once(monkeypatch):
    numbers = np.random.default_rng(1).random((7, 2))
    whole = bootstrap_interval(numbers, lambda sums: sums[:, 0] / sums[:, 1], resamples=200)
    monkeypatch.setattr("diffrgen.metrics.bootstrap.AT_ONCE", 7)
    assert bootstrap_interval(numbers, lambda sums: sums[:, 0] / sums[:, 1], resamples=200) == whole


@pytest.mark.parametrize("name", ["bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l"])
def test_language_scores_of_each_resample_computed_anew(no_meteor, texts, name):
    said, true = texts
    again = [
        corpus_scores([said[study] for study in rows], [true[study] for study in rows])[name]
        for rows in resampled(len(said))
    ]
    scores = score_corpus(said, true, resamples=RESAMPLES, seed=SEED)
    assert scores.intervals[name] == pytest.approx(percentiles(again), rel=1e-9)
    assert scores.values == corpus_scores(said, true)
    assert "meteor" not in scores.intervals


def test_cider_keeps_the_document_frequencies_of_all_references(no_meteor, texts):
    said, true = texts
    _, each = Cider().compute_score({i: [text] for i, text in enumerate(true)}, {i: [t] for i, t in enumerate(said)})
    again = [sum(each[study] for study in rows) / len(rows) for rows in resampled(len(said))]
    interval = score_corpus(said, true, resamples=RESAMPLES, seed=SEED).intervals["cider"]
    assert interval == pytest.approx(percentiles(again))


@pytest.fixture
def one_process(monkeypatch):
    """METEOR's process, which takes 8 s to start, for all calls of a test."""
    with meteor._process(meteor._command(), lambda: 600.0) as pipes:
        monkeypatch.setattr(meteor, "_process", lambda *_: nullcontext(pipes))
        yield


@java
@pytest.mark.usefixtures("one_process")
def test_meteor_of_each_resample_computed_anew(texts):
    said, true = texts
    again = [
        meteor_score([said[study] for study in rows], [true[study] for study in rows]).score
        for rows in resampled(len(said))[:4]
    ]
    found = meteor_score(said, true, resamples=4, seed=SEED)
    assert found.interval == pytest.approx(percentiles(again))
    assert found.score == pytest.approx(meteor_score(said, true).score)


def test_clinical_scores_of_each_resample_computed_anew():
    rng = np.random.default_rng(5)
    predicted, truth = rng.integers(0, 3, (2, 11, 4))
    # A finding that one study has: some resamples have no F1 of it.
    predicted[:, 3] = truth[:, 3] = 0
    truth[2, 3] = 1
    names = ("a", "b", "c", "d")
    again = [clinical_scores(predicted[rows], truth[rows], findings=names) for rows in resampled(11)]
    scores = clinical_scores(predicted, truth, findings=names, resamples=RESAMPLES, seed=SEED)
    assert scores.micro_f1_interval == pytest.approx(percentiles([each.micro.f1 for each in again]))
    assert scores.intervals["macro_f1"] == pytest.approx(percentiles([each.macro_f1 for each in again]))
    for name in ("precision", "recall", "f1"):
        assert scores.intervals[name] == pytest.approx(percentiles([getattr(each.example, name) for each in again]))


def test_intervals_as_a_table():
    states = np.array([[1], [1], [1]])
    clinical = clinical_scores(states, states, findings=("a",))
    row = interval_row({"bleu_1": (0.25, 0.5), "rouge_l": None}, clinical, clinical)
    header, _, body, *notes = markdown_table({"ours": row}).splitlines()
    assert [cell.strip() for cell in header.strip("|").split("|")] == [
        "Model", "Precision", "Recall", "F1", "BLEU-1", "BLEU-4", "METEOR", "ROUGE-L", "micro-F1",
    ]  # fmt: skip
    assert [cell.strip() for cell in body.strip("|").split("|")] == [
        "ours", *["1.000-1.000"] * 3, "0.250-0.500", "- (1)", "- (1)", "- (1)", "1.000-1.000",
    ]  # fmt: skip
    assert notes == ["", "- (1) no interval: the score is absent or there are fewer than two studies"]

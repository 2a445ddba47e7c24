"""Calibration error, risk against coverage and isotonic regression, each by hand."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from sklearn.isotonic import IsotonicRegression

from diffrgen.errors import DataError
from diffrgen.evaluation.calibration_fit import LEAST, cross_fitted, fit_confidence, fit_curve
from diffrgen.metrics.confidence import BINS, confidence_scores

# Ten sentences of three studies. Their bins: two in (0.1, 0.2], three in (0.4, 0.5], five in (0.8, 0.9].
PROBABILITY = np.array([0.2, 0.2, 0.5, 0.45, 0.41, 0.9, 0.9, 0.85, 0.85, 0.85])
TRUE = np.array([0, 1, 0, 1, 0, 1, 1, 1, 0, 1], dtype=bool)
STUDY = np.array([4, 4, 4, 7, 7, 7, 7, 9, 9, 9])


def test_calibration_error_of_a_worked_example():
    """|0.5 - 0.2| 2/10 + |1/3 - 1.36/3| 3/10 + |0.8 - 0.87| 5/10 = 0.06 + 0.036 + 0.035"""
    scores = confidence_scores(PROBABILITY, TRUE, STUDY)
    assert scores.ece == pytest.approx(0.131)
    assert (scores.studies, scores.sentences, scores.share_true) == (3, 10, 0.6)
    filled = {one.low: (one.count, one.mean_probability, one.share_true) for one in scores.bins if one.count}
    assert filled == {
        0.1: (2, pytest.approx(0.2), pytest.approx(0.5)),
        0.4: (3, pytest.approx(1.36 / 3), pytest.approx(1 / 3)),
        0.8: (5, pytest.approx(0.87), pytest.approx(0.8)),
    }
    assert len(scores.bins) == BINS
    assert scores.ece_interval[0] <= scores.ece <= scores.ece_interval[1]


def test_the_ends_of_the_bins_belong_to_the_bins_below_and_zero_to_the_first():
    scores = confidence_scores(np.array([0.0, 0.1, 0.3, 0.7, 1.0]), np.ones(5, bool), np.arange(5), resamples=0)
    assert [one.low for one in scores.bins if one.count] == pytest.approx([0.0, 0.2, 0.6, 0.9])
    assert scores.bins[0].count == 2
    assert scores.ece_interval is None


def test_risk_against_coverage_of_a_worked_example():
    """The surest first: true, false, true, false. Risks 0, 1/2, 1/3, 2/4 have the mean 1/3."""
    scores = confidence_scores(np.array([0.3, 0.9, 0.6, 0.8]), np.array([0, 1, 1, 0], bool), np.arange(4))
    assert scores.aurc == pytest.approx((0 + 1 / 2 + 1 / 3 + 2 / 4) / 4)
    assert (scores.surer_half, scores.other_half, scores.errors_in_surer_half) == (0.5, 0.5, 0.5)
    assert scores.risk["0.5"] == pytest.approx(0.5)
    assert scores.risk["1.0"] == pytest.approx(0.5)


def test_sentences_of_one_probability_stand_in_every_order():
    probability = np.array([0.9, 0.5, 0.5, 0.5, 0.2])
    true = np.array([1, 0, 1, 0, 0], dtype=bool)
    areas = []
    for order in permutations([1, 2, 3]):
        false = ~true[[0, *order, 4]]
        areas.append(np.mean(false.cumsum() / np.arange(1, 6)))
    assert confidence_scores(probability, true, np.arange(5)).aurc == pytest.approx(np.mean(areas))


def test_the_halves_share_a_block_of_one_probability():
    """Four are surest, with one error; of the other six with three errors, one belongs to the surer half: half an error."""
    probability = np.array([0.9] * 4 + [0.4] * 6)
    true = np.array([1, 1, 1, 0, 1, 1, 1, 0, 0, 0], dtype=bool)
    scores = confidence_scores(probability, true, np.arange(10))
    assert scores.surer_half == pytest.approx((1 + 0.5) / 5)
    assert scores.other_half == pytest.approx(2.5 / 5)
    assert scores.errors_in_surer_half == pytest.approx(1.5 / 4)


def test_intervals_are_those_of_resampled_studies():
    """With two studies of one sentence each, a resample has one of them twice or both: risks 0, 1/4 (the surer is true), 1."""
    scores = confidence_scores(np.array([0.9, 0.2]), np.array([True, False]), np.array([0, 1]))
    assert scores.aurc == pytest.approx(0.25)
    assert scores.aurc_interval == (0.0, 1.0)
    assert scores.ece_interval == pytest.approx((0.1, 0.2))


def test_scores_without_a_false_sentence_have_no_share_of_errors():
    scores = confidence_scores(np.array([0.9, 0.8]), np.array([True, True]), np.arange(2), resamples=0)
    assert (scores.aurc, scores.errors_in_surer_half) == (0.0, None)


@pytest.mark.parametrize(
    ("probability", "message"), [([0.5, 1.5], "from 0 to 1"), ([0.5, np.nan], "from 0 to 1"), ([0.5], "one shape")]
)
def test_other_input_is_refused(probability, message):
    with pytest.raises(ValueError, match=message):
        confidence_scores(np.array(probability), np.array([True, False]), np.arange(2))


def test_isotonic_regression_pools_what_falls():
    """False, false, true, false, true, true, with a true one added at 1 and a false one at 6: (1/2, 0), (1, 0), (1, 1/2) fall."""
    curve = fit_curve(np.arange(1.0, 7.0), np.array([0, 0, 1, 0, 1, 1], dtype=bool))
    expected = [1 / 3, 1 / 3, 1 / 3, 1 / 2, 1 / 2, 2 / 3, 2 / 3, 2 / 3]
    assert [curve.at(score) for score in (0, 1, 2, 3, 4, 5, 6, 9)] == pytest.approx(expected)
    assert curve.at(2.5) == pytest.approx((1 / 3 + 1 / 2) / 2)
    assert curve.fault() is None


def test_the_stored_curve_is_what_scikit_learn_predicts():
    draw = np.random.default_rng(0)
    scores = draw.normal(size=200)
    true = draw.random(200) < 1 / (1 + np.exp(-scores))
    ends = [scores.min(), scores.max()]
    fitted = IsotonicRegression(out_of_bounds="clip").fit([*scores, *ends], [*true, 1, 0])
    asked = np.linspace(-5, 5, 101)
    curve = fit_curve(scores, true)
    assert [curve.at(score) for score in asked] == pytest.approx(fitted.predict(asked).tolist())


def drawn_sentences(studies: int = 400) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sentences that are true with the probability 1/(1 + exp(-2 x)) of one of two features x, five a study."""
    draw = np.random.default_rng(1)
    features = draw.normal(size=(5 * studies, 2)) * [1.0, 100.0]
    true = draw.random(5 * studies) < 1 / (1 + np.exp(-2 * features[:, 0]))
    return features, true, np.repeat(np.arange(studies), 5)


def test_the_fit_finds_the_probability_that_sentences_were_drawn_with():
    features, true, study = drawn_sentences()
    fitted = fit_confidence(features, true, study)
    asked = np.array([[-1.0, 50.0], [0.0, -50.0], [1.0, 0.0]])
    assert fitted.of(asked) == pytest.approx([0.12, 0.5, 0.88], abs=0.08)
    # Half of the studies by the other half: neither flattered nor worse than the noise of 1,000 sentences.
    scores = confidence_scores(cross_fitted(features, true, study), true, study)
    assert scores.ece < 0.05
    assert scores.errors_in_surer_half < 0.35


def test_a_fit_needs_both_kinds_of_sentences_in_several_studies():
    features, true, study = drawn_sentences(20)
    with pytest.raises(DataError, match=f"at least {LEAST} true and {LEAST} false"):
        fit_confidence(features, np.arange(len(true)) > 5, study)
    with pytest.raises(DataError, match="at least 2 studies, got 1"):
        fit_confidence(features, true, np.zeros_like(study))
    with pytest.raises(DataError, match="in one study"):
        fit_confidence(features, np.arange(len(true)) >= LEAST, np.minimum(np.arange(len(true)) // LEAST, 1))

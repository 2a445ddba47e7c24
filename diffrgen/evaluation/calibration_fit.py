"""Fitting the probability that a sentence is true: logistic regression to a score, isotonic regression to a probability.

Isotonic regression is fitted on scores that the sentences got by regressions without their study, as in scikit-learn's
CalibratedClassifierCV(ensemble=False): on its own sentences a score would look surer than it is on others.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold

from diffrgen.errors import DataError
from diffrgen.reporting.calibration import RisingCurve

FOLDS = 5
# Minimum number of true and of false sentences; with fewer, isotonic regression has only one or two steps.
LEAST = 20


@dataclass(frozen=True)
class FittedScore:
    """score = intercept + sum_k coefficients_k (features_k - means_k) / scales_k"""

    means: np.ndarray
    scales: np.ndarray
    coefficients: np.ndarray
    intercept: float

    def of(self, features: np.ndarray) -> np.ndarray:
        """Return the scores (n,) of features (n, F)."""
        return self.intercept + (features - self.means) / self.scales @ self.coefficients


@dataclass(frozen=True)
class FittedConfidence:
    """A score, and the probability by score."""

    score: FittedScore
    curve: RisingCurve

    def of(self, features: np.ndarray) -> np.ndarray:
        """Return the probabilities (n,) of features (n, F)."""
        return np.interp(self.score.of(features), self.curve.scores, self.curve.probabilities)


def fit_confidence(features: np.ndarray, correct: np.ndarray, study: np.ndarray) -> FittedConfidence:
    """Fit on n sentences: features (n, F), correct (n,) bool, and the study (n,) that each belongs to.

    Raises DataError if there are fewer than LEAST true or false sentences, or all of a kind are in one study.
    """
    counts = {"true": int(correct.sum()), "false": int((~correct).sum())}
    if min(counts.values()) < LEAST:
        raise DataError(
            f"a calibration needs at least {LEAST} true and {LEAST} false sentences with findings, got {counts['true']} and "
            f"{counts['false']}; calibrate on a split with more studies"
        )
    scores = np.empty(len(correct))
    for fitted, held_out in _folds(study, FOLDS):
        scores[held_out] = _fit_score(features[fitted], correct[fitted]).of(features[held_out])
    return FittedConfidence(_fit_score(features, correct), fit_curve(scores, correct))


def cross_fitted(features: np.ndarray, correct: np.ndarray, study: np.ndarray, *, folds: int = 2) -> np.ndarray:
    """Return the probability (n,) of each sentence by a calibration on the other folds of the studies."""
    probability = np.empty(len(correct))
    for fitted, held_out in _folds(study, folds):
        probability[held_out] = fit_confidence(features[fitted], correct[fitted], study[fitted]).of(features[held_out])
    return probability


def fit_curve(scores: np.ndarray, correct: np.ndarray) -> RisingCurve:
    """Return the isotonic regression of correct (n,) bool on scores (n,), with a true sentence added at the lowest score and a
    false one at the highest.

    The m surest sentences cannot show that such are always true: if all of them are, their probability is m/(m + 1).
    """
    scores = np.concatenate([scores, [scores.min(), scores.max()]])
    fitted = IsotonicRegression(out_of_bounds="clip").fit(scores, np.concatenate([correct, [True, False]]).astype(np.float64))
    return RisingCurve(tuple(fitted.X_thresholds_.tolist()), tuple(fitted.y_thresholds_.tolist()))


def _fit_score(features: np.ndarray, correct: np.ndarray) -> FittedScore:
    if len(set(correct.tolist())) < 2:
        raise DataError("a calibration needs true and false sentences in several studies, got all of one kind in one study")
    means, scales = features.mean(0), features.std(0)
    scales = np.where(scales > 0, scales, 1.0)
    fitted = LogisticRegression().fit((features - means) / scales, correct)
    return FittedScore(means, scales, fitted.coef_[0], float(fitted.intercept_[0]))


def _folds(study: np.ndarray, folds: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the rows to fit on and those held out, all sentences of a study on one side."""
    studies = len(np.unique(study))
    if studies < 2:
        raise DataError(f"a calibration needs sentences of at least 2 studies, got {studies}")
    return GroupKFold(min(folds, studies), shuffle=True, random_state=0).split(study, groups=study)

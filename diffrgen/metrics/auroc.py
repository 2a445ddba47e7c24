"""Area under the receiver operating characteristic: how well probabilities order studies with and without a finding."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from diffrgen.metrics.bootstrap import PERCENTILES, Interval, study_weights


@dataclass(frozen=True)
class Auroc:
    """value in 0..1 (0.5: no order at all), its 95 % interval over studies, and how many studies have the finding."""

    value: float
    interval: Interval | None
    positives: int
    negatives: int


def auroc(scores: np.ndarray, truth: np.ndarray, *, resamples: int = 1000, seed: int = 0) -> Auroc:
    """Return the area of scores (n,) for truth (n,) bool.

        area = mean over pairs of a positive i and a negative j of  [s_i > s_j] + [s_i = s_j] / 2

    The interval resamples studies; a resample without positives or negatives is passed over.

    Raises:
        ValueError: the shapes differ, or there is no positive or no negative study.
    """
    scores, truth = np.asarray(scores, dtype=np.float64), np.asarray(truth, dtype=bool)
    if scores.shape != truth.shape or scores.ndim != 1:
        raise ValueError(f"expected scores and truth of one shape (n,), got {scores.shape} and {truth.shape}")
    if truth.all() or not truth.any():
        raise ValueError(f"expected positive and negative studies, got {truth.sum()} positive of {len(truth)}")
    positive, negative = scores[truth], scores[~truth]
    wins = (positive[:, None] > negative) + 0.5 * (positive[:, None] == negative)  # (positives, negatives)
    values: list[np.ndarray] = []
    for weights in study_weights(len(scores), resamples, seed):
        drawn, others = weights[:, truth], weights[:, ~truth]
        pairs = drawn.sum(axis=1) * others.sum(axis=1)
        sums = ((drawn @ wins) * others).sum(axis=1)
        values.append(sums[pairs > 0] / pairs[pairs > 0])
    found = np.concatenate(values) if values else np.empty(0)
    low_high = np.percentile(found, PERCENTILES) if len(found) else None
    interval = None if low_high is None else (float(low_high[0]), float(low_high[1]))
    return Auroc(float(wins.mean()), interval, len(positive), len(negative))

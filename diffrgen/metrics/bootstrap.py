"""95 % bootstrap intervals over studies, from sums of per-study numbers, so that no score is computed again."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

Interval = tuple[float, float]
# Scores of sums over studies: (R, K) -> (R,), NaN where a resample has no score.
Statistic = Callable[[np.ndarray], np.ndarray]
PERCENTILES = (2.5, 97.5)
# Resamples whose weights are in memory at once: 64 x 3,858 float64 are 2 MB.
AT_ONCE = 64


def bootstrap_interval(
    per_study: np.ndarray, statistic: Statistic, *, resamples: int = 1000, seed: int = 0
) -> Interval | None:
    """Return the 2.5 and 97.5 percentiles of a score over studies drawn with replacement.

        value_r = statistic(sum_i w_ri per_study_i),    w_r = how often resample r drew each study

    Args:
        per_study: (n, K), the numbers of each study whose sums the score is computed from.
        statistic: sums (R, K) -> scores (R,); NaN is passed over.
        resamples, seed: the same seed draws the same studies, whatever the score.

    Returns None for fewer than two studies, without resamples, and where none of them has a score.
    """
    if len(per_study) < 2 or not resamples:
        return None
    numbers = np.asarray(per_study, dtype=np.float64)
    values = np.concatenate([statistic(weights @ numbers) for weights in study_weights(len(numbers), resamples, seed)])
    values = values[~np.isnan(values)]
    if not len(values):
        return None
    low, high = np.percentile(values, PERCENTILES)
    return float(low), float(high)


def mean_interval(per_study: np.ndarray, *, resamples: int = 1000, seed: int = 0) -> Interval | None:
    """Return the interval of the mean of the studies' own scores (n,)."""
    scores = np.asarray(per_study, dtype=np.float64)
    return bootstrap_interval(scores[:, None], lambda sums: sums[:, 0] / len(scores), resamples=resamples, seed=seed)


def ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Return part / whole, NaN where the whole is 0."""
    return np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=whole != 0)


def study_weights(studies: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Yield how often each study is drawn, (<= AT_ONCE, n) float64."""
    rng = np.random.default_rng(seed)
    for start in range(0, resamples, AT_ONCE):
        count = min(AT_ONCE, resamples - start)
        drawn = rng.integers(studies, size=(count, studies))
        places = (drawn + np.arange(count)[:, None] * studies).ravel()
        yield np.bincount(places, minlength=count * studies).reshape(count, studies).astype(np.float64)

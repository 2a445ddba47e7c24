"""Scores of sentence probabilities: calibration error (Naeini 2015, Guo 2017), risk against coverage (Geifman 2017)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.special import digamma

from diffrgen.metrics.bootstrap import Interval, bootstrap_interval, ratio

BINS = 10
# Coverages at which the risk is written to metrics.json.
COVERAGES = tuple(round(0.1 * step, 1) for step in range(1, 11))


@dataclass(frozen=True)
class ReliabilityBin:
    """The sentences with a probability in (low, high], in the first bin from 0 on: their mean, and the share of true ones."""

    low: float
    high: float
    count: int
    mean_probability: float | None
    share_true: float | None


@dataclass(frozen=True)
class ConfidenceScores:
    """Probabilities of sentences against the truth; each interval is the 95 % one by bootstrap over studies.

    share_true: of all sentences. ece: sum over the bins of count/n |share_true - mean_probability|, BINS bins of equal width.
    aurc: the mean over k = 1..n of the share of false sentences among the k surest; sentences of one probability stand in
    every order, each as likely. risk: that share for the surest 10 %, 20 %, ..., by coverage. surer_half, other_half: of
    false sentences in each half; errors_in_surer_half: how many of all false sentences the surer half holds.
    """

    studies: int
    sentences: int
    share_true: float
    ece: float
    ece_interval: Interval | None
    aurc: float
    aurc_interval: Interval | None
    surer_half: float
    surer_half_interval: Interval | None
    other_half: float
    other_half_interval: Interval | None
    errors_in_surer_half: float | None
    errors_in_surer_half_interval: Interval | None
    bins: tuple[ReliabilityBin, ...]
    risk: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """Return nested plain values for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        shown = "" if self.ece_interval is None else f" ({self.ece_interval[0]:.3f} to {self.ece_interval[1]:.3f})"
        return (
            f"{self.sentences} sentences of {self.studies} studies, {self.share_true:.1%} true; calibration error "
            f"{self.ece:.3f}{shown}; false: {self.surer_half:.1%} in the confident half, {self.other_half:.1%} in the other; "
            f"area under the risk-coverage curve {self.aurc:.3f}"
        )


def confidence_scores(
    probability: np.ndarray, correct: np.ndarray, study: np.ndarray, *, resamples: int = 1000
) -> ConfidenceScores:
    """Score the probabilities (n,) of n >= 1 sentences, rounded to three places, against which of them are correct (n,) bool.

    study: (n,) int64, the number of the study that a sentence belongs to. Raises ValueError for other shapes, no sentence, and
    probabilities outside 0..1.
    """
    probability, correct = np.asarray(probability, dtype=np.float64), np.asarray(correct, dtype=bool)
    if not (probability.ndim == 1 and len(probability) and probability.shape == correct.shape == np.shape(study)):
        shapes = f"{probability.shape}, {correct.shape} and {np.shape(study)}"
        raise ValueError(f"expected probabilities, truths and studies of one shape (n >= 1,), got {shapes}")
    if not ((probability >= 0) & (probability <= 1)).all():
        raise ValueError("expected probabilities from 0 to 1")
    studies, row = np.unique(study, return_inverse=True)
    binned = _sums(row, _bin(probability), BINS, probability, correct)  # (studies, 3, BINS)
    values, place = np.unique(-probability.round(3), return_inverse=True)
    ranked = _sums(row, place, len(values), probability, correct)  # (studies, 3, distinct), the surest first

    def score(numbers: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray]) -> tuple[float, Interval | None]:
        flat = numbers.reshape(len(numbers), -1)
        shaped = lambda sums: statistic(sums.reshape(-1, *numbers.shape[1:]))  # noqa: E731
        return float(shaped(flat.sum(0)[None])[0]), bootstrap_interval(flat, shaped, resamples=resamples)

    ece, aurc = score(binned, _ece), score(ranked, _aurc)
    surer, other, errors = (score(ranked, statistic) for statistic in (_surer_half, _other_half, _errors_in_surer_half))
    totals = ranked.sum(0)[None]
    return ConfidenceScores(
        len(studies),
        len(correct),
        float(correct.mean()),
        *(*ece, *aurc, *surer, *other),
        errors_in_surer_half=None if np.isnan(errors[0]) else errors[0],
        errors_in_surer_half_interval=errors[1],
        bins=tuple(_bins(binned.sum(0))),
        risk={f"{share:.1f}": float(_errors_at(totals, share)[0] / (share * len(correct))) for share in COVERAGES},
    )


def _bin(probability: np.ndarray) -> np.ndarray:
    """Return the bin of each probability: (0.1, 0.2] is bin 1; 0 belongs to bin 0."""
    return np.clip(np.ceil(probability * BINS - 1e-9).astype(np.int64) - 1, 0, BINS - 1)


def _sums(row: np.ndarray, column: np.ndarray, columns: int, probability: np.ndarray, correct: np.ndarray) -> np.ndarray:
    """Return for each study and column the number of sentences, of false ones, and the sum of the probabilities."""
    places, size = row * columns + column, (row.max() + 1) * columns
    parts = [np.bincount(places, weights, minlength=size) for weights in (None, ~correct, probability)]
    return np.stack([part.reshape(-1, columns) for part in parts], axis=1).astype(np.float64)


def _ece(sums: np.ndarray) -> np.ndarray:
    """Return the calibration error (R,) of sums (R, 3, BINS)."""
    count, false, probability = sums[:, 0], sums[:, 1], sums[:, 2]
    return ratio(np.abs(count - false - probability).sum(1), count.sum(1))


def _aurc(sums: np.ndarray) -> np.ndarray:
    """Return the area under risk against coverage (R,) of sums (R, 3, U), the surest first.

    Of m sentences of one probability behind N others with E errors, e of the m false, the k-th has on average E + k e/m errors
    up to it, so that their risks sum to

        sum_k (E + k e/m) / (N + k) = E h + e/m (m - N h),    h = 1/(N+1) + ... + 1/(N+m)
    """
    count, false = sums[:, 0], sums[:, 1]
    before, errors = count.cumsum(1) - count, false.cumsum(1) - false
    harmonic = digamma(before + count + 1) - digamma(before + 1)
    risks = errors * harmonic + ratio(false, count) * (count - before * harmonic)
    return ratio(np.where(count > 0, risks, 0.0).sum(1), count.sum(1))


def _errors_at(sums: np.ndarray, coverage: float) -> np.ndarray:
    """Return the false sentences (R,) among the share `coverage` of the surest; of one probability, their share counts."""
    count, false = sums[:, 0], sums[:, 1]
    taken = np.clip(coverage * count.sum(1, keepdims=True) - (count.cumsum(1) - count), 0.0, count)
    return (np.nan_to_num(ratio(false, count)) * taken).sum(1)


def _surer_half(sums: np.ndarray) -> np.ndarray:
    return ratio(_errors_at(sums, 0.5), sums[:, 0].sum(1) / 2)


def _other_half(sums: np.ndarray) -> np.ndarray:
    return ratio(sums[:, 1].sum(1) - _errors_at(sums, 0.5), sums[:, 0].sum(1) / 2)


def _errors_in_surer_half(sums: np.ndarray) -> np.ndarray:
    return ratio(_errors_at(sums, 0.5), sums[:, 1].sum(1))


def _bins(sums: np.ndarray) -> list[ReliabilityBin]:
    """Return the bins of sums (3, BINS)."""
    found = []
    for place, (count, false, probability) in enumerate(sums.T):
        mean, correct = (probability / count, 1 - false / count) if count else (None, None)
        found.append(ReliabilityBin(place / BINS, (place + 1) / BINS, int(count), mean, correct))
    return found

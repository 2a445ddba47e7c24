"""A variant against the full network: means over seeds, intervals over seeds and over studies, paired differences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from diffrgen.errors import DataError
from diffrgen.experiments.measures import Measure
from diffrgen.experiments.record import RunRecord
from diffrgen.metrics import Interval
from diffrgen.metrics.bootstrap import bootstrap_interval

LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """The mean of a score, or of a paired difference, over seeds, with two 95 % intervals and a p-value.

    seed_interval: where the mean over many seeds lies, by Student's t over the seeds (None for one seed): the studies are
    the same. study_interval: the same trainings on other studies, by bootstrap over studies. p_value: of a difference,
    two-sided, by the paired t-test over seeds.
    """

    mean: float
    values: tuple[float, ...]
    seed_interval: Interval | None
    study_interval: Interval | None
    p_value: float | None = None

    @property
    def clear(self) -> bool:
        """Whether a difference is one by both: p < 0.05 over seeds, and an interval over studies without 0."""
        if self.p_value is None or self.study_interval is None:
            return False
        return self.p_value < 1 - LEVEL and not self.study_interval[0] <= 0.0 <= self.study_interval[1]


def estimate(measure: Measure, runs: Sequence[RunRecord]) -> Estimate | None:
    """Return the score of `runs`, one a seed; None if one of them has none."""
    values = _values(measure, runs)
    if values is None:
        return None
    return Estimate(float(np.mean(values)), values, seed_interval(values), _study_interval(measure, [(1, runs)]))


def difference(measure: Measure, runs: Sequence[RunRecord], full: Sequence[RunRecord]) -> Estimate | None:
    """Return the score of `runs` less that of `full`, paired by seed and by study; None if one run has none.

    Raises DataError if seeds or studies are not the same.
    """
    if [run.seed for run in runs] != [run.seed for run in full]:
        raise DataError(f"expected runs of equal seeds, got {[r.seed for r in runs]} and {[r.seed for r in full]}")
    if {run.studies for run in (*runs, *full)} != {full[0].studies}:
        raise DataError(f"expected runs evaluated on the same studies, got others in {runs[0].variant}")
    mine, theirs = _values(measure, runs), _values(measure, full)
    if mine is None or theirs is None:
        return None
    values = tuple(a - b for a, b in zip(mine, theirs, strict=True))
    return Estimate(
        float(np.mean(values)),
        values,
        seed_interval(values),
        _study_interval(measure, [(1, runs), (-1, full)]),
        paired_p_value(values),
    )


def seed_interval(values: Sequence[float]) -> Interval | None:
    """Return mean +- t(0.975, n - 1) s / sqrt(n); None for fewer than two values."""
    if len(values) < 2:
        return None
    half = float(stats.t.ppf((1 + LEVEL) / 2, len(values) - 1) * stats.sem(values))
    return float(np.mean(values)) - half, float(np.mean(values)) + half


def paired_p_value(differences: Sequence[float]) -> float | None:
    """Return the two-sided p of the paired t-test over seeds; None for one seed, and where all differences are equal.

    Seeds are the unit: each is one training of both networks, with the same order of the same studies. So p tests whether
    another training would show the difference, and the interval over studies whether other studies would.
    """
    if len(differences) < 2 or np.ptp(differences) == 0:
        return None
    return float(stats.ttest_1samp(differences, 0.0).pvalue)


def _values(measure: Measure, runs: Sequence[RunRecord]) -> tuple[float, ...] | None:
    values = [measure.of(run) for run in runs]
    return None if None in values else tuple(value for value in values if value is not None)


def _study_interval(measure: Measure, groups: Sequence[tuple[int, Sequence[RunRecord]]]) -> Interval | None:
    """Return the bootstrap interval over studies of sum_g sign_g mean_seeds score; a resample draws the same for all."""
    if measure.score is None:
        return None
    score, runs = measure.score, [(sign / len(group), run) for sign, group in groups for run in group]
    matrices = [measure.numbers(run) for _, run in runs]
    if any(matrix is None for matrix in matrices):
        return None
    side_by_side = np.stack([matrix for matrix in matrices if matrix is not None], axis=1)  # (n, runs, K)
    shape = side_by_side.shape[1:]

    def combined(sums: np.ndarray) -> np.ndarray:
        each = sums.reshape(-1, *shape)  # (R, runs, K)
        return np.sum([weight * score(each[:, place]) for place, (weight, _) in enumerate(runs)], axis=0)

    return bootstrap_interval(side_by_side.reshape(len(side_by_side), -1), combined)

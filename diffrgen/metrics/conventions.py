"""Clinical efficacy by the conventions that papers used, side by side and by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from diffrgen.labels.findings import COMMON, FINDINGS, State
from diffrgen.metrics.bootstrap import Interval, bootstrap_interval

F1Statistic = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class AveragedScores:
    """Precision, recall and F1 in 0..1, and the 95 % interval of F1 over studies, None if there is none."""

    precision: float
    recall: float
    f1: float
    f1_interval: Interval | None


@dataclass(frozen=True)
class ClinicalConventions:
    """The result of `clinical_conventions`; f1chexbert: by the number of findings, "14" or "5", then by average."""

    promptmrg: AveragedScores
    f1chexbert: dict[str, dict[str, AveragedScores]]

    def to_dict(self) -> dict[str, Any]:
        """Return nested plain values for JSON."""
        return asdict(self)


def clinical_conventions(
    predicted: np.ndarray, truth: np.ndarray, *, resamples: int = 1000, seed: int = 0
) -> ClinicalConventions:
    """Compare states (n, C >= 14) by each convention.

    promptmrg: a finding is present where its state is positive; each study's own precision, recall and F1 over 14 findings,
    0/0 = 0, then the mean over studies. Source: PromptMRG's release, modules/metrics_clinical.py.

    f1chexbert: uncertain counts as present; averages "micro", "macro", "weighted" (by support) and "samples" (as promptmrg's)
    over the 14 findings and over CheXpert's five, 0/0 = 0. Source: the package f1chexbert and RadEval, which call
    scikit-learn's classification_report.
    """
    drawn = {"resamples": resamples, "seed": seed}
    positive = presence(predicted, uncertain=False), presence(truth, uncertain=False)
    present = presence(predicted, uncertain=True), presence(truth, uncertain=True)
    columns = {"14": FINDINGS, "5": COMMON}
    return ClinicalConventions(
        promptmrg=averaged(finding_counts(*positive), "samples", **drawn),
        f1chexbert={
            name: {
                average: averaged(finding_counts(*present, findings=findings), average, **drawn) for average in AVERAGES
            }
            for name, findings in columns.items()
        },
    )


def presence(states: np.ndarray, *, uncertain: bool) -> np.ndarray:
    """Return where a finding counts as present, (n, 14) bool, of states (n, C >= 14)."""
    states = np.asarray(states)[:, : len(FINDINGS)]
    return (states == State.POSITIVE) | (uncertain & (states == State.UNCERTAIN))


def finding_counts(predicted: np.ndarray, truth: np.ndarray, *, findings: Sequence[str] = FINDINGS) -> np.ndarray:
    """Return each study's true positives, false positives and false negatives by finding, (n, 3, F) float64.

    predicted, truth: (n, 14) bool. The statistics of `AVERAGES` take the sums of them over studies.
    """
    columns = [FINDINGS.index(name) for name in findings]
    claimed, present = predicted[:, columns], truth[:, columns]
    return np.stack([claimed & present, claimed & ~present, ~claimed & present], axis=1).astype(np.float64)


def averaged(counts: np.ndarray, average: str, *, resamples: int, seed: int) -> AveragedScores:
    """Return an average's scores of counts (n, 3, F), with the interval of F1."""
    numbers = per_study_numbers(counts, average)
    precision, recall, f1 = scores_of_sums(numbers.sum(axis=0, keepdims=True), average)[0]

    def statistic(sums: np.ndarray) -> np.ndarray:
        return scores_of_sums(sums, average)[:, 2]

    interval = bootstrap_interval(numbers, statistic, resamples=resamples, seed=seed)
    return AveragedScores(float(precision), float(recall), float(f1), interval)


def per_study_numbers(counts: np.ndarray, average: str) -> np.ndarray:
    """Return what `scores_of_sums` takes the sums of, (n, K): counts (n, 3, F) in a row; for "samples" own scores and 1."""
    if average != "samples":
        return counts.reshape(len(counts), -1)
    return np.concatenate([_ratios(counts.sum(axis=2)), np.ones((len(counts), 1))], axis=1)


def scores_of_sums(sums: np.ndarray, average: str) -> np.ndarray:
    """Return precision, recall and F1 (R, 3) of sums (R, K) of `per_study_numbers`.

    >>> scores_of_sums(np.array([[1.0, 1.0, 0.0]]), "micro").round(3).tolist()
    [[0.5, 1.0, 0.667]]
    """
    return AVERAGES[average](sums)


def _micro(sums: np.ndarray) -> np.ndarray:
    return _ratios(sums.reshape(len(sums), 3, -1).sum(axis=2))


def _macro(sums: np.ndarray) -> np.ndarray:
    return _each_finding(sums).mean(axis=1)


def _weighted(sums: np.ndarray) -> np.ndarray:
    tp, _, fn = np.moveaxis(sums.reshape(len(sums), 3, -1), 1, 0)
    support = tp + fn  # (R, F)
    total = np.maximum(support.sum(axis=1, keepdims=True), 1)
    return (_each_finding(sums) * (support / total)[..., None]).sum(axis=1)


def _samples(sums: np.ndarray) -> np.ndarray:
    return sums[:, :3] / np.maximum(sums[:, 3:], 1)


def _each_finding(sums: np.ndarray) -> np.ndarray:
    """Precision, recall and F1 of each finding, (R, F, 3), of sums (R, 3 F)."""
    return _ratios(np.swapaxes(sums.reshape(len(sums), 3, -1), 1, 2))


def _ratios(counts: np.ndarray) -> np.ndarray:
    """Precision, recall and F1 (..., 3) of true positives, false positives and false negatives (..., 3), 0/0 = 0."""
    tp, fp, fn = np.moveaxis(counts, -1, 0)
    # If a denominator is 0, so is its numerator; other denominators are at least 1.
    return np.stack(
        [tp / np.maximum(tp + fp, 1), tp / np.maximum(tp + fn, 1), 2 * tp / np.maximum(2 * tp + fp + fn, 1)], axis=-1
    )


AVERAGES: Mapping[str, F1Statistic] = MappingProxyType(
    {"micro": _micro, "macro": _macro, "weighted": _weighted, "samples": _samples}
)

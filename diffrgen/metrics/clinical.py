"""Clinical efficacy: agreement between the findings labeled in a generated report and those of its reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from diffrgen.labels.findings import State
from diffrgen.metrics.bootstrap import Interval, bootstrap_interval, mean_interval, ratio


@dataclass(frozen=True, slots=True)
class PrecisionRecallF1:
    """Three scores in 0..1; None if a score is not defined."""

    precision: float | None
    recall: float | None
    f1: float | None


@dataclass(frozen=True, slots=True)
class FindingScore:
    """One finding's scores; `support` studies have it, in `predicted` studies it was predicted."""

    finding: str
    support: int
    predicted: int
    precision: float | None
    recall: float | None
    f1: float | None


@dataclass(frozen=True, slots=True)
class ClinicalScores:
    """The result of `clinical_scores`.

    `micro_f1_interval` is the 95 % bootstrap interval over studies, `intervals` those of macro_f1 and of the example-based
    precision, recall and f1, None if there is none; `macro_f1` is the mean of the F1 of the
    `macro_findings` findings that have one; `example` is PromptMRG's (the CE columns of the paper's Table 1).
    """

    studies: int
    micro: PrecisionRecallF1
    micro_f1_interval: tuple[float, float] | None
    macro_f1: float | None
    macro_findings: int
    example: PrecisionRecallF1
    per_finding: tuple[FindingScore, ...]
    intervals: dict[str, Interval | None]

    def to_dict(self) -> dict[str, Any]:
        """Return nested plain values, ready for JSON."""
        return asdict(self)


def clinical_scores(
    predicted: np.ndarray,
    truth: np.ndarray,
    *,
    findings: Sequence[str],
    resamples: int = 1000,
    seed: int = 0,
) -> ClinicalScores:
    """Compare states (n, C); a finding counts as present where its state is positive (1), nothing else.

        precision = tp / (tp + fp)    recall = tp / (tp + fn)    f1 = 2 tp / (2 tp + fp + fn)

    over all cells (micro), per finding, and per study and then averaged (example-based). A quotient 0/0 is None, except
    in the example-based scores, where PromptMRG counts it as 0: a study without findings on both sides scores 0 there.

    Args:
        predicted, truth: states (see `diffrgen.labels.State`), (n, C) integers.
        findings: names of the C columns.
        resamples, seed: of the bootstrap over studies; the same seed gives the same interval.

    Raises:
        ValueError: shapes disagree, there is no study, or a value is no state.
    """
    claimed, present = _validate(predicted, truth, findings)
    tp, fp, fn = claimed & present, claimed & ~present, ~claimed & present  # (n, C)
    drawn = {"resamples": resamples, "seed": seed}
    studies = [tp.sum(1), fp.sum(1), fn.sum(1)]  # (n,) each
    columns = [_ratios(*counts) for counts in zip(tp.sum(0), fp.sum(0), fn.sum(0), strict=True)]
    defined = [scores.f1 for scores in columns if scores.f1 is not None]
    return ClinicalScores(
        studies=len(claimed),
        micro=_ratios(tp.sum(), fp.sum(), fn.sum()),
        micro_f1_interval=bootstrap_interval(np.stack(studies, 1), f1_of_sums, **drawn),
        macro_f1=float(np.mean(defined)) if defined else None,
        macro_findings=len(defined),
        example=PrecisionRecallF1(*(float(np.mean(scores)) for scores in _example_based(*studies))),
        per_finding=tuple(
            FindingScore(name, int(present[:, c].sum()), int(claimed[:, c].sum()), s.precision, s.recall, s.f1)
            for c, (name, s) in enumerate(zip(findings, columns, strict=True))
        ),
        intervals={
            "macro_f1": bootstrap_interval(np.stack([tp, fp, fn], 1).reshape(len(claimed), -1), _macro_f1, **drawn),
            **{
                name: mean_interval(scores, **drawn)
                for name, scores in zip(("precision", "recall", "f1"), _example_based(*studies), strict=True)
            },
        },
    )


def study_counts(predicted: np.ndarray, truth: np.ndarray, *, findings: Sequence[str]) -> np.ndarray:
    """Return the true positives, false positives and false negatives of each study, (n, 3) int64.

    Arguments and errors as in `clinical_scores`.
    """
    claimed, present = _validate(predicted, truth, findings)
    return np.stack([(claimed & present).sum(1), (claimed & ~present).sum(1), (~claimed & present).sum(1)], axis=1)


def _validate(predicted: np.ndarray, truth: np.ndarray, findings: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return the masks of positive states, (n, C) bool each."""
    claimed, present = np.asarray(predicted), np.asarray(truth)
    if claimed.shape != present.shape or claimed.ndim != 2 or claimed.shape[1] != len(findings):
        raise ValueError(
            f"expected predicted and truth of one shape (n, {len(findings)}), got {claimed.shape} and {present.shape}"
        )
    if claimed.size == 0:
        raise ValueError(f"expected at least one study and one finding, got shape {claimed.shape}")
    states = [int(state) for state in State]
    for name, values in (("predicted", claimed), ("truth", present)):
        if not np.isin(values, states).all():
            strange = sorted(set(np.unique(values).tolist()) - set(states))
            raise ValueError(f"expected states out of {states} in {name}, got {strange[:5]}")
    return claimed == State.POSITIVE, present == State.POSITIVE


def _ratios(tp: int, fp: int, fn: int) -> PrecisionRecallF1:
    def defined(part: int, whole: int) -> float | None:
        return float(part / whole) if whole else None

    return PrecisionRecallF1(defined(tp, tp + fp), defined(tp, tp + fn), defined(2 * tp, 2 * tp + fp + fn))


def _example_based(tp: np.ndarray, fp: np.ndarray, fn: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return precision, recall and F1 of each study, (n,) each, with 0/0 = 0."""
    # If a denominator is 0, so is its numerator.
    wholes = (tp + fp, tp + fn, 2 * tp + fp + fn)
    return tuple(part / np.maximum(whole, 1) for part, whole in zip((tp, tp, 2 * tp), wholes, strict=True))


def f1_of_sums(sums: np.ndarray) -> np.ndarray:
    """Return F1 (...) of sums (..., 3) of true positives, false positives and false negatives; NaN for 0/0."""
    tp, fp, fn = np.moveaxis(sums, -1, 0)
    return ratio(2 * tp, 2 * tp + fp + fn)


def recall_of_sums(sums: np.ndarray) -> np.ndarray:
    """Return recall (...) of sums (..., 3) of true positives, false positives and false negatives; NaN for 0/0."""
    tp, _, fn = np.moveaxis(sums, -1, 0)
    return ratio(tp, tp + fn)


def _macro_f1(sums: np.ndarray) -> np.ndarray:
    """Mean of the F1 (R,) over the findings that have one; sums (R, 3 C) hold those of each finding, C a kind."""
    each = f1_of_sums(np.swapaxes(sums.reshape(len(sums), 3, -1), 1, 2))  # (R, C)
    return ratio(np.nansum(each, axis=1), np.sum(~np.isnan(each), axis=1))

"""Clinical efficacy: do the findings read out of a written report agree with those of its reference?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from diffrgen.labels.findings import State


@dataclass(frozen=True, slots=True)
class PrecisionRecallF1:
    """Three scores in 0..1; None where a score is not defined."""

    precision: float | None
    recall: float | None
    f1: float | None


@dataclass(frozen=True, slots=True)
class FindingScore:
    """One finding's scores; `support` studies have it, in `predicted` studies it was said."""

    finding: str
    support: int
    predicted: int
    precision: float | None
    recall: float | None
    f1: float | None


@dataclass(frozen=True, slots=True)
class ClinicalScores:
    """What `clinical_scores` returns.

    `micro_f1_interval` is the 95 % bootstrap interval over studies; `macro_f1` is the mean of the F1 of the
    `macro_findings` findings that have one; `example` is PromptMRG's (the CE columns of the paper's Table 1).
    """

    studies: int
    micro: PrecisionRecallF1
    micro_f1_interval: tuple[float, float] | None
    macro_f1: float | None
    macro_findings: int
    example: PrecisionRecallF1
    per_finding: tuple[FindingScore, ...]

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
    said, true = _validate(predicted, truth, findings)
    tp, fp, fn = said & true, said & ~true, ~said & true  # (n, C)
    columns = [_ratios(*counts) for counts in zip(tp.sum(0), fp.sum(0), fn.sum(0), strict=True)]
    defined = [scores.f1 for scores in columns if scores.f1 is not None]
    return ClinicalScores(
        studies=len(said),
        micro=_ratios(tp.sum(), fp.sum(), fn.sum()),
        micro_f1_interval=_bootstrap(tp.sum(1), fp.sum(1), fn.sum(1), resamples=resamples, seed=seed),
        macro_f1=float(np.mean(defined)) if defined else None,
        macro_findings=len(defined),
        example=_example_based(tp.sum(1), fp.sum(1), fn.sum(1)),
        per_finding=tuple(
            FindingScore(name, int(true[:, c].sum()), int(said[:, c].sum()), s.precision, s.recall, s.f1)
            for c, (name, s) in enumerate(zip(findings, columns, strict=True))
        ),
    )


def _validate(predicted: np.ndarray, truth: np.ndarray, findings: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return the masks of positive states, (n, C) bool each."""
    said, true = np.asarray(predicted), np.asarray(truth)
    if said.shape != true.shape or said.ndim != 2 or said.shape[1] != len(findings):
        raise ValueError(
            f"expected predicted and truth of one shape (n, {len(findings)}), got {said.shape} and {true.shape}"
        )
    if said.size == 0:
        raise ValueError(f"expected at least one study and one finding, got shape {said.shape}")
    states = [int(state) for state in State]
    for name, values in (("predicted", said), ("truth", true)):
        if not np.isin(values, states).all():
            strange = sorted(set(np.unique(values).tolist()) - set(states))
            raise ValueError(f"expected states out of {states} in {name}, got {strange[:5]}")
    return said == State.POSITIVE, true == State.POSITIVE


def _ratios(tp: int, fp: int, fn: int) -> PrecisionRecallF1:
    def ratio(part: int, whole: int) -> float | None:
        return float(part / whole) if whole else None

    return PrecisionRecallF1(ratio(tp, tp + fp), ratio(tp, tp + fn), ratio(2 * tp, 2 * tp + fp + fn))


def _example_based(tp: np.ndarray, fp: np.ndarray, fn: np.ndarray) -> PrecisionRecallF1:
    """Average the studies' own scores with 0/0 = 0; tp, fp, fn (n,)."""

    def mean(part: np.ndarray, whole: np.ndarray) -> float:
        # A whole of 0 has a part of 0.
        return float(np.mean(part / np.maximum(whole, 1)))

    return PrecisionRecallF1(mean(tp, tp + fp), mean(tp, tp + fn), mean(2 * tp, 2 * tp + fp + fn))


def _bootstrap(
    tp: np.ndarray, fp: np.ndarray, fn: np.ndarray, *, resamples: int, seed: int
) -> tuple[float, float] | None:
    """Return the 2.5 and 97.5 percentiles of micro-F1 over resampled studies; None where it is not defined."""
    hits, cells = 2 * tp, 2 * tp + fp + fn  # (n,)
    if len(tp) < 2 or not cells.any():
        return None
    rng = np.random.default_rng(seed)
    values = []
    for _ in range(resamples):
        rows = rng.integers(len(tp), size=len(tp))
        whole = cells[rows].sum()
        # A resample without any positive cell has no F1 and is passed over.
        if whole:
            values.append(hits[rows].sum() / whole)
    if not values:
        return None
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)

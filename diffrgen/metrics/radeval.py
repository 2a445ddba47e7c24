"""Optional scores by the package radeval (RadGraph F1, BERTScore, RaTEScore, ...): pip install "diffrgen[radeval]".

NOTE: run against radeval 2.2.1 up to the download of RadGraph's weights; its scores have not been seen here.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from diffrgen.metrics.bootstrap import Interval, mean_interval

# radeval rounds its scores to four digits.
ROUNDED = 1e-4
# A score, or the reason why there is none.
RadEvalScores = dict[str, float | str]


def radeval_scores(hypotheses: Sequence[str], references: Sequence[str], metrics: Sequence[str]) -> RadEvalScores:
    """Score `hypotheses[i]` against `references[i]` by radeval's `metrics`, such as radgraph, f1chexbert, ratescore.

    Returns radeval's own keys (radgraph_simple, radgraph_partial, radgraph_complete, ...) with their numbers. A metric
    that cannot be computed, because the package, one of its parts or its weights are absent, has its own name as
    key, the reason in words as value, and one RuntimeWarning; never a number.
    """
    scores: RadEvalScores = {}
    for metric in metrics:
        try:
            scores |= _compute(hypotheses, references, metric)
        # radeval and its models raise almost any exception if a part or a download is missing.
        except Exception as error:
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            if isinstance(error, ModuleNotFoundError) and error.name == "radeval":
                reason = 'radeval is not installed: pip install "diffrgen[radeval]"'
            warnings.warn(f"{metric} is not scored: {reason}", RuntimeWarning, stacklevel=2)
            scores[metric] = reason
    return scores


def radeval_intervals(
    hypotheses: Sequence[str],
    references: Sequence[str],
    metrics: Sequence[str],
    scores: RadEvalScores,
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Interval | None]:
    """Return the 95 % interval over studies of each score that is the mean of radeval's scores of single studies.

    scores: those of `radeval_scores`. Each metric is computed once more, study by study. A score that is no such mean, as
    micro-F1 is not, has no interval.
    """
    intervals: dict[str, Interval | None] = {}
    for metric in metrics:
        if metric in scores and isinstance(scores[metric], str):
            # The corpus score could not be computed either.
            continue
        try:
            samples = _evaluate(hypotheses, references, metric, per_sample=True)
        # As in radeval_scores.
        except Exception as error:
            warnings.warn(f"{metric} has no interval: {type(error).__name__}: {error}", RuntimeWarning, stacklevel=2)
            continue
        for name, values in samples.items():
            score = scores.get(name)
            if not isinstance(score, float) or not isinstance(values, Sequence) or len(values) != len(hypotheses):
                continue
            each = np.asarray(values, dtype=np.float64)
            if abs(each.mean() - score) <= ROUNDED:
                intervals[name] = mean_interval(each, resamples=resamples, seed=seed)
    return intervals


def _compute(hypotheses: Sequence[str], references: Sequence[str], metric: str) -> dict[str, float]:
    answer = _evaluate(hypotheses, references, metric, per_sample=False)
    return {name: float(value) for name, value in answer.items()}


def _evaluate(
    hypotheses: Sequence[str], references: Sequence[str], metric: str, *, per_sample: bool
) -> dict[str, Any]:
    package = importlib.import_module("radeval")
    # radeval 2.2.1 imports RadGraph by the package's former name, which only case-insensitive file systems find.
    sys.modules.setdefault("RadEval", package)
    with warnings.catch_warnings():
        # Its constructor disables all warnings permanently.
        evaluator = package.RadEval(metrics=[metric], per_sample=per_sample, show_progress=False)
        answer: dict[str, Any] = evaluator(refs=list(references), hyps=list(hypotheses))
    return answer

"""Optional scores by the package radeval (RadGraph F1, BERTScore, RaTEScore, ...): pip install "diffrgen[radeval]".

NOTE: run against radeval 2.2.1 up to the download of RadGraph's weights; its scores have not been seen here.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Sequence
from typing import Any

# A score, or in words why there is none.
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
        # radeval and the models behind it raise nearly every exception where a part or a download is missing.
        except Exception as error:
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            if isinstance(error, ModuleNotFoundError) and error.name == "radeval":
                reason = 'radeval is not installed: pip install "diffrgen[radeval]"'
            warnings.warn(f"{metric} is left out of the scores: {reason}", RuntimeWarning, stacklevel=2)
            scores[metric] = reason
    return scores


def _compute(hypotheses: Sequence[str], references: Sequence[str], metric: str) -> dict[str, float]:
    package = importlib.import_module("radeval")
    # radeval 2.2.1 imports its RadGraph by its former name, which only file systems without case find (its issue 27).
    sys.modules.setdefault("RadEval", package)
    with warnings.catch_warnings():
        # Its constructor turns all warnings off for good.
        evaluator = package.RadEval(metrics=[metric], show_progress=False)
        answer: dict[str, Any] = evaluator(refs=list(references), hyps=list(hypotheses))
    return {name: float(value) for name, value in answer.items()}

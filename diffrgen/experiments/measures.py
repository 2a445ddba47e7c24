"""The measures of the tables: what each is a sum of over studies, and the score of that sum."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from diffrgen.evaluation.statements import SCORES
from diffrgen.experiments.record import RunRecord
from diffrgen.metrics.bootstrap import ratio
from diffrgen.metrics.clinical import f1_of_sums, recall_of_sums
from diffrgen.metrics.corpus import bleu_of_sums


@dataclass(frozen=True)
class Measure:
    """A score of a run. `numbers` gives (n, K) of its studies or None, `score` the scores (R,) of sums (R, K).

    Without them (`meteor`) the score is read from the run's metrics, and cannot be resampled over studies.
    """

    name: str
    label: str
    numbers: Callable[[RunRecord], np.ndarray | None] = lambda record: None
    score: Callable[[np.ndarray], np.ndarray] | None = None

    def of(self, record: RunRecord) -> float | None:
        """Return the score of a run over all its studies; None if it has none."""
        numbers = self.numbers(record)
        if self.score is None:
            return record.scores["nlg"].get(self.name)
        if numbers is None:
            return None
        value = float(self.score(numbers.sum(0, keepdims=True))[0])
        return None if np.isnan(value) else value


def _stored(name: str) -> Callable[[RunRecord], np.ndarray | None]:
    return lambda record: record.numbers(name)


def _with_ones(scores: np.ndarray) -> np.ndarray:
    """Return (n, 2): scores (n,) whose mean is wanted, and ones, so that sums hold the number of studies."""
    return np.stack([scores, np.ones(len(scores))], axis=1)


def _mean(sums: np.ndarray) -> np.ndarray:
    return ratio(sums[:, 0], sums[:, 1])


def _rouge(record: RunRecord) -> np.ndarray | None:
    scores = record.numbers("rouge_l")
    return None if scores is None else _with_ones(scores[:, 0])


def _example_f1(record: RunRecord) -> np.ndarray | None:
    counts = record.numbers("clinical_14")
    # PromptMRG: a study without findings on both sides scores 0.
    return None if counts is None else _with_ones(np.nan_to_num(f1_of_sums(counts)))


def _statement(name: str, label: str) -> Measure:
    return Measure(name, label, _stored("statements"), SCORES[name].of)


LANGUAGE = (
    Measure("bleu_1", "BLEU-1", _stored("bleu"), lambda sums: bleu_of_sums(sums)[:, 0]),
    Measure("bleu_4", "BLEU-4", _stored("bleu"), lambda sums: bleu_of_sums(sums)[:, 3]),
    Measure("meteor", "METEOR"),
    Measure("rouge_l", "ROUGE-L", _rouge, _mean),
)
CLINICAL = (
    Measure("f1", "F1", _example_f1, _mean),
    Measure("micro_f1", "micro-F1", _stored("clinical_13"), f1_of_sums),
)
PROMPTS = (
    Measure("classifier_f1", "classifier's micro-F1", _stored("classifier_13"), f1_of_sums),
    Measure("classifier_rare_recall", "classifier's rare recall", _stored("classifier_rare"), recall_of_sums),
    Measure("prompts_told", "prompts mentioned", _stored("followed_13"), recall_of_sums),
)
STATEMENTS = (
    _statement("change_f1", "change F1"),
    _statement("change_without_prior", "change without a prior"),
    _statement("severity_accuracy", "severity"),
    _statement("rare_recall", "rare recall"),
    _statement("hallucination", "hallucination"),
)
MEASURES = (*LANGUAGE, *CLINICAL, *PROMPTS, *STATEMENTS)

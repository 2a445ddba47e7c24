"""Rewards of generated reports: the scores of `diffrgen.evaluate`, a report at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from diffrgen.evaluation.statements import COUNTS, SCORES, StatementTruth
from diffrgen.labels import DISEASES, FINDINGS, Labeler
from diffrgen.metrics.clinical import f1_of_sums, study_counts
from diffrgen.metrics.corpus import CiderReferences, bleu_counts, bleu_of_sums, rouge_l
from diffrgen.metrics.temporal import temporal_f1
from diffrgen.pipeline.dataset import StudyDataset
from diffrgen.records import Study
from diffrgen.text import apply_protocol

COLUMNS = [FINDINGS.index(name) for name in DISEASES]


@dataclass(frozen=True)
class ScoredReports:
    """rows: the study of each report; raw, cleaned: hypotheses and references before and after the protocol."""

    rows: Sequence[int]
    raw: tuple[Sequence[str], Sequence[str]]
    cleaned: tuple[Sequence[str], Sequence[str]]


class Rewards:
    """Gives the rewards of reports for studies of `dataset`, each in 0..1 (CIDEr: 0..10).

    states      F1 of the report's positive findings (13, without no finding), by `labeler`, against the study's labels
    change      F1 of the pairs (finding, change) that a phantom report states
    temporal    F1 of the words of change (temporal-entity F1)
    bleu_4      BLEU-4 of the report alone
    rouge_l     ROUGE-L
    cider       CIDEr; words are weighed by their rarity among the references of the training split

    A quotient 0/0, such as the F1 of states where neither side has any, is 1: nothing was expected, and nothing is mentioned.
    """

    def __init__(
        self, names: Sequence[str], dataset: StudyDataset, labeler: Labeler, training: Sequence[Study]
    ) -> None:
        self.names, self.labeler = tuple(names), labeler
        self.references = [study.report for study in dataset.studies]
        self.truth = dataset.states.numpy()[:, COLUMNS]
        self._statements = StatementTruth.of(dataset.studies, training) if "change" in names else None
        self._cider = None
        if "cider" in names:
            references = [study.report for study in training]
            self._cider = CiderReferences(apply_protocol("promptmrg", references, references)[1])

    def __call__(self, rows: Sequence[int], reports: Sequence[str]) -> dict[str, np.ndarray]:
        """Return the rewards (n,) float64 by name of `reports`, each for the study of its row; "" is a report of no word."""
        references = [self.references[row] for row in rows]
        scored = ScoredReports(rows, (reports, references), apply_protocol("promptmrg", reports, references))
        return {name: np.asarray(SCORERS[name](self, scored), dtype=np.float64) for name in self.names}

    def _states(self, scored: ScoredReports) -> np.ndarray:
        reported = self.labeler(scored.raw[0])[:, COLUMNS]
        return _defined(f1_of_sums(study_counts(reported, self.truth[list(scored.rows)], findings=DISEASES)))

    def _change(self, scored: ScoredReports) -> np.ndarray:
        assert self._statements is not None  # made where the reward is asked for
        truth = self._statements
        chosen = StatementTruth(
            tuple(truth.reports[row] for row in scored.rows), tuple(truth.first[row] for row in scored.rows), truth.rare
        )
        counts = chosen.score(scored.raw[0], [()] * len(scored.rows)).counts
        assert counts.shape[1] == len(COUNTS)
        return _defined(SCORES["change_f1"].of(counts))

    def _cider_each(self, scored: ScoredReports) -> np.ndarray:
        assert self._cider is not None  # made where the reward is asked for
        return self._cider(*scored.cleaned)


def _defined(scores: np.ndarray) -> np.ndarray:
    return np.where(np.isnan(scores), 1.0, scores)


SCORERS: Mapping[str, Callable[[Rewards, ScoredReports], np.ndarray]] = MappingProxyType(
    {
        "states": Rewards._states,
        "change": Rewards._change,
        "temporal": lambda _, scored: temporal_f1(*scored.raw),
        "bleu_4": lambda _, scored: bleu_of_sums(bleu_counts(*scored.cleaned))[:, 3],
        "rouge_l": lambda _, scored: rouge_l(*scored.cleaned),
        "cider": Rewards._cider_each,
    }
)

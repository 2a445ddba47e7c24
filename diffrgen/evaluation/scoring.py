"""Scores of written reports: language, clinical findings, diversity; the run's own beside blind baselines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from diffrgen.evaluation.baselines import most_frequent_report, random_training_reports
from diffrgen.labels import FINDINGS, NO_FINDING, Labeler
from diffrgen.metrics import (
    ClinicalScores,
    ReportDiversity,
    clinical_scores,
    corpus_scores,
    report_diversity,
    table_row,
)

DISEASES = tuple(name for name in FINDINGS if name != FINDINGS[NO_FINDING])


@dataclass(frozen=True)
class Scores:
    """The scores of one set of reports against its references; clinical ones over the 13 findings."""

    corpus: dict[str, float]
    clinical: ClinicalScores
    diversity: ReportDiversity

    def table_row(self) -> dict[str, Any]:
        """Return the columns of the paper's Table 1."""
        return table_row(self.corpus, self.clinical, self.diversity)

    def to_dict(self) -> dict[str, Any]:
        """Return nested plain values for JSON."""
        return {"nlg": self.corpus, "clinical": self.clinical.to_dict(), "diversity": self.diversity.to_dict()}


def score_reports(
    hypotheses: Sequence[str], references: Sequence[str], truth: np.ndarray, labeler: Labeler
) -> Scores:
    """Score reports against references; `truth` (n, C >= 14) are the studies' states, the labeler reads the texts'."""
    return Scores(
        corpus=corpus_scores(list(hypotheses), list(references)),
        clinical=disease_scores(hypotheses, truth, labeler),
        diversity=report_diversity(list(hypotheses)),
    )


def disease_scores(hypotheses: Sequence[str], truth: np.ndarray, labeler: Labeler) -> ClinicalScores:
    """Compare the 13 findings that the labeler reads in the reports with the studies' states (n, C >= 14)."""
    columns = [FINDINGS.index(name) for name in DISEASES]
    return clinical_scores(labeler(hypotheses)[:, columns], truth[:, columns], findings=DISEASES)


def score_beside_baselines(
    hypotheses: dict[str, Sequence[str]],
    references: Sequence[str],
    truth: np.ndarray,
    *,
    labeler: Labeler,
    training_reports: Sequence[str],
) -> dict[str, Scores]:
    """Score each named set of reports, then the blind baselines over the same studies."""
    count = len(references)
    rows = {
        **hypotheses,
        "blind: most frequent report": most_frequent_report(training_reports, count),
        "blind: random training report": random_training_reports(training_reports, count),
    }
    return {name: score_reports(reports, references, truth, labeler) for name, reports in rows.items()}

"""Scores of a run's sentence confidence on the evaluated studies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from diffrgen.evaluation.sentences import judge_sentences, left_out, reference_states
from diffrgen.labels import Labeler
from diffrgen.metrics.confidence import ConfidenceScores, confidence_scores
from diffrgen.records import Split
from diffrgen.reporting.calibration import ConfidenceCalibration
from diffrgen.reporting.writer import GeneratedReport


@dataclass(frozen=True)
class ConfidenceEvaluation:
    """scores: of the sentences with findings; without_findings: sentences without, which have no probability.

    listed: findings listed as not mentioned, of which references state `stated` as positive. calibrated_on: the split that
    the calibration was fitted on; same_studies: whether that is the split that is scored, so that the scores flatter.
    """

    scores: ConfidenceScores
    without_findings: int
    listed: int
    stated: int
    calibrated_on: Split
    same_studies: bool

    def to_dict(self) -> dict[str, Any]:
        """Return nested plain values for JSON."""
        return {
            "calibrated_on": self.calibrated_on,
            "fitted_on_these_studies": self.same_studies,
            **self.scores.to_dict(),
            "sentences_without_findings": self.without_findings,
            "not_mentioned": {"listed": self.listed, "stated_by_reference": self.stated},
        }

    def __str__(self) -> str:
        fitted = " Fitted on these studies: the scores are optimistic." if self.same_studies else ""
        return (
            f"{self.scores}. {self.without_findings} sentences mention no finding and have no probability. Not mentioned: "
            f"{self.listed} findings, of which the references mention {self.stated}.{fitted}"
        )


def evaluate_confidence(
    written: Sequence[GeneratedReport],
    references: Sequence[str],
    calibration: ConfidenceCalibration,
    labeler: Labeler,
    *,
    split: Split,
    data: str | None,
    resamples: int,
) -> ConfidenceEvaluation | None:
    """Score the confidence of reports that are rated by `calibration`; None if no sentence names a finding.

    split, data: what is evaluated, data as in `ConfidenceCalibration`.
    """
    truth = reference_states(references, labeler)
    judged, omissions = judge_sentences(written, truth), left_out(written, truth, labeler)
    if not len(judged.correct):
        return None
    return ConfidenceEvaluation(
        scores=confidence_scores(judged.probability, judged.correct, judged.study, resamples=resamples),
        without_findings=judged.without_findings,
        listed=int(omissions.listed.sum()),
        stated=int((omissions.listed & omissions.stated).sum()),
        calibrated_on=calibration.split,
        same_studies=(split, data) == (calibration.split, calibration.data),
    )

"""The confidence of each sentence of a generated report, and the findings that the report omits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class SentenceConfidence:
    """One sentence of a generated report, the evidence for it, and the probability that it is true.

    `GeneratedReport.confidence` has one for each sentence, in order: as many as `ExplainedReport.sentences`, at the same places.

    text: the sentence; report[start:end] == text.
    findings: the state ("positive", "negative" or "uncertain") of each of the 13 diseases and devices that the labeler reads
        in it; empty for a sentence that names none of them.
    probability: that the findings of the sentence agree with the study's, 0..1, by the calibration of the run, rounded to
        three places; None for a sentence without findings, which no labeler can call true or false.
    mean_log_probability, min_log_probability: of its tokens, as the decoder generated them, at most 0.
    agreement: the classifier's probability that all of the findings are in states that agree, 0..1; None without findings.
    support: the share of the retrieved reports that agree, 0..1: all findings in the same states or, for a sentence
        without findings, the same words; None if nothing was retrieved.
    """

    text: str
    start: int
    end: int
    findings: dict[str, str]
    probability: float | None
    mean_log_probability: float
    min_log_probability: float
    agreement: float | None
    support: float | None

    def doubtful(self, threshold: float) -> bool:
        """Return whether the sentence is less probable than `threshold`; one without a probability is not doubtful."""
        return self.probability is not None and self.probability < threshold


@dataclass(frozen=True)
class NotMentioned:
    """A finding that the report leaves out and the classifier is sure of.

    probability: that a radiologist's report states it, 0..1, by the calibration of the run; at least 0.5.
    """

    finding: str
    probability: float


def percent(probability: float) -> str:
    """Return a probability in percent; never 0% or 100%, which no calibration on finitely many sentences supports.

    >>> percent(0.831), percent(0.998), percent(0.001)
    ('83%', 'more than 99%', 'less than 1%')
    """
    if probability > 0.99:
        return "more than 99%"
    return f"{probability:.0%}" if probability >= 0.01 else "less than 1%"


def probability_words(probability: float, *, doubtful: bool = False) -> str:
    """Return the probability that a sentence is true as text.

    >>> probability_words(0.831), probability_words(0.31, doubtful=True)
    ('83% likely to be true', 'doubtful: 31% likely to be true')
    """
    return f"{'doubtful: ' if doubtful else ''}{percent(probability)} likely to be true"


def not_mentioned_words(findings: Sequence[NotMentioned]) -> str:
    """Name the findings that a report leaves out, with their probabilities.

    >>> not_mentioned_words([NotMentioned("edema", 0.75), NotMentioned("fracture", 0.5)])
    'edema (75%), fracture (50%)'
    """
    return ", ".join(f"{one.finding} ({percent(one.probability)})" for one in findings)

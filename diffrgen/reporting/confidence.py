"""How sure a run is of each sentence of a report that it generated, and what the report leaves out."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SentenceConfidence:
    """One sentence of a generated report, what supports it, and how probable it is that it is true.

    `WrittenReport.confidence` has one for each sentence, in order: as many as `ExplainedReport.sentences`, at the same places.

    text: the sentence; report[start:end] == text.
    findings: the state ("positive", "negative" or "uncertain") of each of the 13 diseases and devices that the labeler reads
        in it; empty for a sentence that names none of them.
    probability: that the findings of the sentence agree with the study's, 0..1, by the calibration of the run, rounded to
        three places; None for a sentence without findings, which no labeler can call true or false.
    mean_log_probability, min_log_probability: of its tokens, as the decoder generated them, at most 0.
    agreement: the classifier's probability that all of the findings are in states that agree, 0..1; None without findings.
    support: the share of the retrieved reports that say the same, 0..1: all findings in the same states or, for a sentence
        without findings, the same words; None where nothing was retrieved.
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

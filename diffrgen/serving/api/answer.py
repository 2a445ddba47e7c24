"""The report of a study as the API answers it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from pydantic import BaseModel, Field

from diffrgen.clinical.origin import NOTICE, ReportOrigin
from diffrgen.explanation import ExplainedReport

ReadFindings = Callable[[Sequence[str]], Sequence[Mapping[str, str]]]


class Sentence(BaseModel):
    """A sentence of the report."""

    text: str
    findings: dict[str, str] = Field(
        description='The findings that the sentence mentions: "positive", "negative" or "uncertain".'
    )
    confidence: float | None = Field(
        default=None, description="Probability that the findings agree with the study, 0 to 1; absent without a calibration."
    )
    section: Literal["findings", "impression"] | None = Field(
        default=None, description="The section of the sentence; absent if the run generates one text."
    )


class NotMentionedFinding(BaseModel):
    """A finding that the report leaves out and the classifier is sure of."""

    finding: str
    probability: float


class Finding(BaseModel):
    """The image classifier's result for one finding."""

    state: str = Field(description='"blank", "positive", "negative" or "uncertain".')
    probability: float = Field(description="Probability that the finding is present, 0 to 1.")
    severity: str | None = Field(
        default=None, description='"mild", "moderate" or "severe"; absent if the run does not classify it.'
    )


class ReportAnswer(BaseModel):
    """A generated draft report. Research use only, not for diagnosis."""

    notice: str
    report: str
    sentences: list[Sentence]
    findings: dict[str, Finding]
    not_mentioned: list[NotMentionedFinding] | None = Field(
        default=None, description="Findings that the report omits; absent without a calibration."
    )
    views: list[str] = Field(description="The kind of view of each image, for a run with several views.")
    warnings: list[str] = Field(description="Warnings to check before sharing the report or its images.")
    model: str = Field(description="The software and its version.")
    run: str = Field(description="SHA-256 of the run's weights.")


def report_answer(
    explained: ExplainedReport, origin: ReportOrigin, read_findings: ReadFindings, warnings: Sequence[str] = ()
) -> ReportAnswer:
    """Return the API's answer for a report; read_findings: gives the findings of each sentence."""
    written = explained.written
    probabilities = [None if each is None else each.probability for each in explained.confidence]
    texts = [sentence.text for sentence in explained.sentences]
    return ReportAnswer(
        notice=NOTICE,
        report=written.report,
        sentences=[
            Sentence(text=each.text, findings=dict(findings), confidence=probability, section=each.section)
            for each, findings, probability in zip(
                explained.sentences, read_findings(texts), probabilities, strict=True
            )
        ],
        findings={
            name: Finding(
                state=state, probability=written.positive_probability[name], severity=written.severity_of(name)
            )
            for name, state in written.states.items()
        },
        not_mentioned=None
        if written.not_mentioned is None
        else [NotMentionedFinding(finding=each.finding, probability=each.probability) for each in written.not_mentioned],
        views=list(written.views),
        warnings=list(warnings),
        model=origin.software,
        run=origin.digest,
    )

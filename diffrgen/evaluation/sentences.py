"""Truth of the sentences of generated reports, by the findings of the reference reports.

A sentence is true if each of its findings agrees with the reference (`diffrgen.labels.agreement`): what it calls positive is
positive there, what it calls negative is not named or negative, what it calls uncertain is uncertain or positive. A sentence
without findings is neither true nor false. On the phantom the labeler reads references without an error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from diffrgen.labels import DISEASES, Labeler, State, agreeing
from diffrgen.reporting.calibration import sentence_features
from diffrgen.reporting.confidence import SentenceConfidence
from diffrgen.reporting.writer import GeneratedReport


@dataclass(frozen=True)
class JudgedSentences:
    """The n sentences with findings of all reports, in order.

    features (n, F): those of `sentence_features`; probability (n,): NaN without a calibration; correct (n,) bool; study (n,): the
    place of the report. without_findings: how many sentences name none.
    """

    features: np.ndarray
    probability: np.ndarray
    correct: np.ndarray
    study: np.ndarray
    without_findings: int


@dataclass(frozen=True)
class LeftOut:
    """The n findings that reports do not name: positive (n,), the classifier's P(positive); stated (n,) bool: whether the
    reference calls it positive; listed (n,) bool: as not mentioned.
    """

    positive: np.ndarray
    stated: np.ndarray
    listed: np.ndarray


def reference_states(references: Sequence[str], labeler: Labeler) -> np.ndarray:
    """Return the states (n, 13) that the labeler reads in the references."""
    return labeler(references)[:, : len(DISEASES)]


def judge_sentences(written: Sequence[GeneratedReport], truth: np.ndarray) -> JudgedSentences:
    """Judge the rated sentences of each report by the states (n, 13) of its reference."""
    rated = [(place, one) for place, report in enumerate(written) for one in report.confidence or ()]
    judged = [(place, one) for place, one in rated if one.findings]
    stated = np.array([_stated(one) for _, one in judged], dtype=np.int64).reshape(len(judged), len(DISEASES))
    study = np.array([place for place, _ in judged], dtype=np.int64)
    return JudgedSentences(
        features=np.array([sentence_features(one) for _, one in judged]),
        probability=np.array([np.nan if one.probability is None else one.probability for _, one in judged]),
        correct=np.asarray(agreeing(stated, truth[study]).all(1)),
        study=study,
        without_findings=len(rated) - len(judged),
    )


def left_out(written: Sequence[GeneratedReport], truth: np.ndarray, labeler: Labeler) -> LeftOut:
    """Return the findings that the reports do not name, with the states (n, 13) of the references."""
    blank = reference_states([report.report for report in written], labeler) == State.BLANK
    positive = np.array([[report.positive_probability[name] for name in DISEASES] for report in written])
    listed = np.array([[name in {one.finding for one in report.not_mentioned or ()} for name in DISEASES] for report in written])
    return LeftOut(positive[blank], (truth == State.POSITIVE)[blank], listed[blank])


def _stated(sentence: SentenceConfidence) -> list[int]:
    """Return the states (13,) of a sentence's findings."""
    return [State[sentence.findings[name].upper()] if name in sentence.findings else State.BLANK for name in DISEASES]

"""Scores of generated reports: language, clinical findings, diversity; also of image-free baselines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from diffrgen.evaluation.agreement import PromptAgreement
from diffrgen.evaluation.baselines import most_frequent_report, random_training_reports
from diffrgen.evaluation.statements import Statements, StatementTruth
from diffrgen.labels import COMMON, DISEASES, FINDINGS
from diffrgen.metrics import (
    ClinicalConventions,
    ClinicalScores,
    Interval,
    RadEvalScores,
    ReportDiversity,
    TemporalScore,
    clinical_conventions,
    clinical_scores,
    corpus_scores,
    interval_row,
    paired_numbers,
    radeval_intervals,
    radeval_scores,
    report_diversity,
    score_corpus,
    table_row,
    temporal_score,
)
from diffrgen.metrics.clinical import study_counts
from diffrgen.pipeline.labeler import NamedLabeler
from diffrgen.text import Protocol, apply_protocol
from diffrgen.text.cleaning import has_marks, without_marks

BASELINES = FREQUENT_ROW, RANDOM_ROW, INDICATION_ROW = (
    "blind: most frequent report",
    "blind: random training report",
    "blind: indication only",
)


@dataclass(frozen=True)
class PromptScores:
    """Over the 13 diseases, whether the classifier or the decoder is at fault where a report is wrong.

    classifier: its states, which prompt the decoder, against the truth; followed: the report against these states, so
    that its recall is the share of the prompted diseases that the report mentions; agreement: what the report denies of the
    states that prompted it.
    """

    classifier: ClinicalScores
    followed: ClinicalScores
    agreement: PromptAgreement
    resamples: int = 1000

    def to_dict(self) -> dict[str, Any]:
        """Return nested plain values for JSON."""
        return {
            "classifier_13": self.classifier.to_dict(),
            "followed_13": self.followed.to_dict(),
            "agreement_13": self.agreement.to_dict(resamples=self.resamples),
        }


@dataclass(frozen=True)
class Scores:
    """The scores of one set of reports against its references.

    clinical: over all 14 findings, "no finding" among them, as PromptMRG's; diseases: over the 13 others; common: over
    CheXpert's five. corpus_intervals: the 95 % intervals of the language scores over studies. labeler: the labeler of the
    generated reports; truth_from: the source of the references' states, "data" or a labeler's name.
    radeval: the scores of that package, with intervals for those that are means over studies, or the reason why a score is
    missing, if requested. statements: scores of change,
    severity, rare diseases and copied facts, if the truth is known. prompts: scores of the states that prompted the reports,
    if known. per_study: for each study, the numbers whose sums or means give the corpus and clinical scores, "bleu",
    "rouge_l", "clinical_14" and "clinical_13", with prompts "classifier_13" and "followed_13", with statements too
    "classifier_rare" (see `score_corpus` and `study_counts`). conventions: clinical scores as other papers compute them;
    temporal: of the words of change. states: of the generated reports (n, C >= 14). paired: the numbers of each study that
    `paired_differences` compares systems by. without_marks: `corpus` over texts without de-identification marks, where
    references hold some.
    """

    corpus: dict[str, float]
    corpus_intervals: dict[str, Interval | None]
    clinical: ClinicalScores
    diseases: ClinicalScores
    common: ClinicalScores
    diversity: ReportDiversity
    labeler: str
    truth_from: str
    conventions: ClinicalConventions
    temporal: TemporalScore
    states: np.ndarray
    paired: dict[str, np.ndarray]
    without_marks: dict[str, float] = field(default_factory=dict)
    radeval: RadEvalScores = field(default_factory=dict)
    radeval_intervals: dict[str, Interval | None] = field(default_factory=dict)
    statements: Statements | None = None
    prompts: PromptScores | None = None
    per_study: dict[str, np.ndarray] = field(default_factory=dict)

    def table_row(self) -> dict[str, Any]:
        """Return the columns of the paper's Table 1, and the micro-F1 over the 13 diseases."""
        return table_row(self.corpus, self.clinical, self.diseases, self.diversity)

    def interval_row(self) -> dict[str, Any]:
        """Return the 95 % intervals of the columns of `table_row`."""
        return interval_row(self.corpus_intervals, self.clinical, self.diseases)

    def to_dict(self) -> dict[str, Any]:
        """Return nested plain values for JSON."""
        asked: dict[str, Any] = {"radeval": self.radeval} if self.radeval else {}
        if self.radeval_intervals:
            asked["radeval_intervals"] = self.radeval_intervals
        if self.statements is not None:
            asked["statements"] = self.statements.to_dict()
        if self.prompts is not None:
            asked |= self.prompts.to_dict()
        if self.without_marks:
            asked["nlg_without_marks"] = self.without_marks
        return {
            "labeler": self.labeler,
            "truth": self.truth_from,
            "nlg": self.corpus,
            "nlg_intervals": self.corpus_intervals,
            "clinical_14": self.clinical.to_dict(),
            "clinical_13": self.diseases.to_dict(),
            "clinical_5": self.common.to_dict(),
            "clinical": self.conventions.to_dict(),
            "temporal_entity_f1": self.temporal.to_dict(),
            "diversity": self.diversity.to_dict(),
            **asked,
        }


def score_reports(
    hypotheses: Sequence[str],
    references: Sequence[str],
    predicted: np.ndarray,
    truth: np.ndarray,
    *,
    labeler: str,
    truth_from: str,
    radeval: Sequence[str] = (),
    resamples: int = 1000,
    texts: tuple[Sequence[str], Sequence[str]] | None = None,
) -> Scores:
    """Score reports against references, word for word; predicted and truth (n, C >= 14) are the states of both.

    labeler, truth_from: the sources of these two, for the record. radeval: metrics of that
    package to compute too. resamples: of the 95 % intervals, 0 for none. texts: hypotheses and references before the
    protocol, whose words of change are compared; default: after it.
    """
    corpus = score_corpus(list(hypotheses), list(references), resamples=resamples)
    texts = texts or (hypotheses, references)
    asked = radeval_scores(hypotheses, references, radeval)
    return Scores(
        conventions=clinical_conventions(predicted, truth, resamples=resamples),
        temporal=temporal_score(*texts, resamples=resamples),
        states=predicted,
        paired=paired_numbers(corpus.per_study, predicted, truth, texts),
        corpus=corpus.values,
        corpus_intervals=corpus.intervals,
        clinical=finding_scores(predicted, truth, FINDINGS, resamples=resamples),
        diseases=finding_scores(predicted, truth, DISEASES, resamples=resamples),
        common=finding_scores(predicted, truth, COMMON, resamples=resamples),
        diversity=report_diversity(list(hypotheses)),
        without_marks=_scores_without_marks(hypotheses, references),
        labeler=labeler,
        truth_from=truth_from,
        radeval=asked,
        radeval_intervals=radeval_intervals(hypotheses, references, radeval, asked, resamples=resamples)
        if resamples
        else {},
        per_study={
            **{name: numbers for name, numbers in corpus.per_study.items() if name != "cider"},
            "clinical_14": study_counts(*_columns(predicted, truth, FINDINGS), findings=FINDINGS),
            "clinical_13": study_counts(*_columns(predicted, truth, DISEASES), findings=DISEASES),
        },
    )


def _scores_without_marks(hypotheses: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """Return the language scores of texts without de-identification marks; nothing where no reference holds one.

    A study whose reference is nothing but marks is left out.
    """
    if not any(map(has_marks, references)):
        return {}
    pairs = [tuple(map(without_marks, pair)) for pair in zip(hypotheses, references, strict=True)]
    kept = [pair for pair in pairs if pair[1]]
    return corpus_scores([reported for reported, _ in kept], [reference for _, reference in kept]) if kept else {}


def finding_scores(
    predicted: np.ndarray, truth: np.ndarray, findings: Sequence[str], *, resamples: int = 1000
) -> ClinicalScores:
    """Compare states (n, C >= 14) in the columns of `findings`."""
    return clinical_scores(*_columns(predicted, truth, findings), findings=findings, resamples=resamples)


def _columns(predicted: np.ndarray, truth: np.ndarray, findings: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    columns = [FINDINGS.index(name) for name in findings]
    return predicted[:, columns], truth[:, columns]


def score_beside_baselines(
    hypotheses: Mapping[str, Sequence[str]],
    references: Sequence[str],
    truth: np.ndarray,
    *,
    labeler: NamedLabeler,
    truth_from: str,
    training_reports: Sequence[str],
    protocol: Protocol,
    radeval: Sequence[str] = (),
    statements: StatementTruth | None = None,
    retrieved: Mapping[str, Sequence[Sequence[str]]] | None = None,
    prompts: Mapping[str, np.ndarray] | None = None,
    baselines: bool = True,
    indicated: Sequence[str] | None = None,
    resamples: int = 1000,
) -> dict[str, Scores]:
    """Score each named set of reports, then (by default) the image-free baselines over the same studies.

    indicated: for each study the training report with the nearest context, a further baseline.

    references: before preprocessing; truth (n, C >= 14): the studies' states, which come from
    `truth_from`; the labeler labels the reports. radeval: metrics of that package, for the named reports only.
    statements: their truth, if known; retrieved: the neighbours' reports of each study, by the
    name of the reports generated from them (a baseline uses none). prompts: the states (n, C >= 14) that
    prompted reports, by their name.
    """
    count = len(references)
    rows = dict(hypotheses)
    if baselines:
        rows[FREQUENT_ROW] = most_frequent_report(training_reports, count)
        rows[RANDOM_ROW] = random_training_reports(training_reports, count)
        if indicated is not None:
            rows[INDICATION_ROW] = indicated
    scores = {}
    for name, reports in rows.items():
        reported, reference = apply_protocol(protocol, reports, references, training=training_reports)
        states = labeler(reports)
        scores[name] = score_reports(
            reported,
            reference,
            states,
            truth,
            labeler=labeler.name,
            truth_from=truth_from,
            radeval=radeval if name in hypotheses else (),
            resamples=resamples,
            texts=(reports, references),
        )
        if statements is not None:
            neighbours = (retrieved or {}).get(name, [()] * count)
            scores[name] = replace(scores[name], statements=statements.score(reports, neighbours))
        if prompts is not None and name in prompts:
            rare = () if statements is None else statements.rare
            scores[name] = _with_prompts(scores[name], prompts[name], states, truth, rare, resamples)
    return scores


def _with_prompts(
    scores: Scores, prompts: np.ndarray, reported: np.ndarray, truth: np.ndarray, rare: Sequence[str], resamples: int
) -> Scores:
    """Add the scores of the states that prompted the reports, whose own states are `reported` (all n, C >= 14)."""
    numbers = {
        "classifier_13": study_counts(*_columns(prompts, truth, DISEASES), findings=DISEASES),
        "followed_13": study_counts(*_columns(reported, prompts, DISEASES), findings=DISEASES),
    }
    if rare:
        numbers["classifier_rare"] = study_counts(*_columns(prompts, truth, rare), findings=rare)
    return replace(
        scores,
        prompts=PromptScores(
            classifier=finding_scores(prompts, truth, DISEASES, resamples=resamples),
            followed=finding_scores(reported, prompts, DISEASES, resamples=resamples),
            agreement=PromptAgreement.of(prompts[:, : len(FINDINGS)], reported[:, : len(FINDINGS)]),
            resamples=resamples,
        ),
        per_study=scores.per_study | numbers,
    )

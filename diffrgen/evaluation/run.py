"""Evaluating a run on a split: reports, scores, baselines, and the files that hold them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from diffrgen.evaluation.confidence import ConfidenceEvaluation, evaluate_confidence
from diffrgen.evaluation.files import new_folder, write_files
from diffrgen.evaluation.human_labels import HumanScores, human_scores
from diffrgen.evaluation.options import EvaluateOptions
from diffrgen.evaluation.record import RECORD, EvaluationRecord
from diffrgen.evaluation.result import CONTEXT_ROW, MARKS_ROW, MODEL_ROW, SHUFFLED_ROW, UNMARKED_ROW, Evaluation
from diffrgen.evaluation.scoring import Scores, score_beside_baselines
from diffrgen.evaluation.section_scores import score_sections
from diffrgen.evaluation.statements import StatementTruth
from diffrgen.evaluation.subject import Subject, open_subject
from diffrgen.metrics import paired_differences
from diffrgen.pipeline.contexts import contexts_of_studies, nearest_contexts
from diffrgen.pipeline.generation import Decoding
from diffrgen.pipeline.options import PHANTOM, GenerationOptions
from diffrgen.pipeline.run_check import weights_digest
from diffrgen.pipeline.settings import save_json
from diffrgen.records import Study
from diffrgen.reporting.rater import SentenceRater
from diffrgen.reporting.writer import GeneratedReport, run_decoding, write_reports
from diffrgen.retrieval import IndexedStudies
from diffrgen.text import ReportSections


class Row(NamedTuple):
    """The reports of one row of the model, and their decoding."""

    reports: Sequence[GeneratedReport]
    decoding: Decoding


def evaluate(options: EvaluateOptions) -> Evaluation:
    """Evaluate a run; raises DataError for a folder that is no run, a split without studies, and unusable data."""
    subject = open_subject(options)
    rows = _generate(subject)
    scores = _score(subject, rows)
    own = rows[MODEL_ROW].reports
    evaluation = Evaluation(
        scores=scores,
        folder=options.output or new_folder(subject.run.evaluation_path, subject.choice.key),
        studies=subject.studies,
        written=own,
        decodings={name: row.decoding for name, row in rows.items()},
        differences={
            name: paired_differences(scores[MODEL_ROW].paired, scores[name].paired, resamples=options.resamples)
            for name in subject.contenders
        },
        human=_human_scores(subject, scores, rows),
        published=options.published,
        confidence=_confidence(subject, own),
        sections=_section_scores(subject, own),
    )
    write_files(evaluation, subject.dataset)
    save_json(_record(subject), evaluation.folder / RECORD)
    return evaluation


def _generate(subject: Subject) -> dict[str, Row]:
    """Generate the reports of the model's rows: the model itself, and with marks, context or images changed if requested."""
    options, dataset, seed = subject.options, subject.dataset, subject.settings.seed
    rater = None
    if subject.calibration is not None:
        rater = SentenceRater(dataset.settings.tokenizer, subject.labeler, subject.calibration)
    rows = {MODEL_ROW: Row(_reports(subject, options.generation, rater), subject.decoding)}
    if options.both_marks:
        name = MARKS_ROW if options.generation.suppress_marks else UNMARKED_ROW
        other = replace(options.generation, suppress_marks=not options.generation.suppress_marks)
        decoding = run_decoding(subject.model, other, max_tokens=subject.settings.max_tokens)
        rows[name] = Row(_reports(subject, other), decoding)
    if options.shuffled_context:
        dataset.shuffle_contexts(seed)
        rows[CONTEXT_ROW] = Row(_reports(subject, options.generation), subject.decoding)
        dataset.context_rows = list(range(len(dataset)))
    if options.shuffled_images:
        dataset.shuffle_images(seed)
        rows[SHUFFLED_ROW] = Row(_reports(subject, options.generation), subject.decoding)
    return rows


def _reports(
    subject: Subject, generation: GenerationOptions, rater: SentenceRater | None = None
) -> list[GeneratedReport]:
    workers = subject.options.workers
    return write_reports(
        subject.model, subject.dataset, generation, labeler=subject.labeler, workers=workers, rater=rater
    )


def _score(subject: Subject, rows: Mapping[str, Row]) -> dict[str, Scores]:
    """Return the scores of each row, of the contenders and of the baselines."""
    options, dataset, source = subject.options, subject.dataset, subject.source
    is_phantom = (options.data or subject.settings.data.data) == PHANTOM
    return score_beside_baselines(
        {name: [one.report for one in row.reports] for name, row in rows.items()} | dict(subject.contenders),
        subject.references,
        dataset.states.numpy(),
        labeler=source.labeler,
        truth_from=source.truth(options.split),
        training_reports=_training_reports(dataset.settings.index.studies),
        protocol=options.protocol,
        radeval=options.radeval,
        statements=StatementTruth.of(subject.studies, source.splits.train) if is_phantom else None,
        retrieved={name: [one.neighbour_reports for one in row.reports] for name, row in rows.items()},
        prompts={name: np.array([one.prompt for one in row.reports]) for name, row in rows.items()},
        baselines=options.baselines,
        indicated=_indicated_reports(subject) if options.baselines else None,
        resamples=options.resamples,
    )


def _confidence(subject: Subject, reports: Sequence[GeneratedReport]) -> ConfidenceEvaluation | None:
    """Return the scores of the model's sentence confidence; None if the run is not calibrated."""
    if subject.calibration is None:
        return None
    return evaluate_confidence(
        *(reports, subject.references, subject.calibration, subject.labeler),
        split=subject.options.split,
        data=subject.choice.data_name,
        resamples=subject.options.resamples,
    )


def _section_scores(subject: Subject, reports: Sequence[GeneratedReport]) -> dict[str, Scores]:
    """Return the scores of findings and of impression alone, by row name, of a run that generates both."""
    if not subject.settings.sections:
        return {}
    scores = score_sections(
        [report.sections for report in reports if report.sections is not None],
        _reference_sections(subject.studies),
        labeler=subject.source.labeler,
        training=_reference_sections(subject.source.splits.train),
        protocol=subject.options.protocol,
        resamples=subject.options.resamples,
    )
    return {f"{MODEL_ROW}, {section}": of_section for section, of_section in scores.items()}


def _reference_sections(studies: Sequence[Study]) -> list[ReportSections]:
    return [ReportSections(study.sections.findings, study.sections.impression) for study in studies]


def _indicated_reports(subject: Subject) -> list[str] | None:
    """Return for each study the report of the training study with the nearest context; None for a run without context.

    Only the context is used, so the scores show how much it provides without the image. Also None if the
    data contain no training studies.
    """
    dataset, training = subject.dataset, subject.source.splits.train
    if dataset.contexts is None or not training:
        return None
    names, rules = subject.model.config.context, dataset.settings.rules
    known = contexts_of_studies(subject.run.retriever(), training, names, rules=rules)
    return [training[place].report for place in nearest_contexts(known, dataset.contexts)]


def _human_scores(
    subject: Subject, scores: Mapping[str, Scores], rows: Mapping[str, Row]
) -> dict[str, HumanScores]:
    """Score each row of the table against human labels, where there are any."""
    labels, ids = subject.human, [study.id for study in subject.studies]
    if labels is None:
        return {}
    probabilities = {name: _probabilities(row.reports) for name, row in rows.items()}
    resamples = subject.options.resamples
    return {
        name: human_scores(labels, ids, row.states, probabilities.get(name), resamples=resamples)
        for name, row in scores.items()
    }


def _probabilities(reports: Sequence[GeneratedReport]) -> dict[str, np.ndarray]:
    """Return the classifier's P(positive) (n,) by finding."""
    return {
        name: np.array([report.positive_probability[name] for report in reports])
        for name in reports[0].positive_probability
    }


def _training_reports(studies: IndexedStudies) -> list[str]:
    """Return the cleaned report of each training study, as the index holds them."""
    return [studies.report(row) for row in range(len(studies))]


def _record(subject: Subject) -> EvaluationRecord:
    return EvaluationRecord(
        split=subject.options.split,
        data=subject.choice.data_name,
        priors=subject.prior,
        protocol=subject.options.protocol,
        beams=subject.decoding.beams,
        weights=weights_digest(subject.run.path),
        decoding=subject.decoding,
    )

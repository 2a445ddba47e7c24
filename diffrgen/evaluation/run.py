"""Evaluating a run on a split: reports, scores, baselines, and the files that hold them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from diffrgen.errors import DataError
from diffrgen.evaluation.confidence import ConfidenceEvaluation, evaluate_confidence
from diffrgen.evaluation.confidence_figure import draw_confidence
from diffrgen.evaluation.contenders import contender_files, read_contenders
from diffrgen.evaluation.human_labels import HumanLabels, HumanScores, human_scores, read_human_labels
from diffrgen.evaluation.options import EvaluateOptions
from diffrgen.evaluation.record import RECORD, EvaluationRecord
from diffrgen.evaluation.scoring import BASELINES, Scores, score_beside_baselines
from diffrgen.evaluation.section_scores import score_sections
from diffrgen.evaluation.split import SplitChoice, check_may_write, load_split
from diffrgen.evaluation.statements import StatementTruth
from diffrgen.metrics import (
    PairedDifference,
    PublishedData,
    difference_table,
    difference_terminal_table,
    markdown_table,
    paired_differences,
    published_rows,
    terminal_table,
)
from diffrgen.model.choices import ContextName
from diffrgen.pipeline.contexts import contexts_of_studies, nearest_contexts
from diffrgen.pipeline.dataset import StudyDataset
from diffrgen.pipeline.generation import Decoding
from diffrgen.pipeline.labeler import run_labeler
from diffrgen.pipeline.options import PHANTOM
from diffrgen.pipeline.run_check import weights_digest
from diffrgen.pipeline.run_folder import RunFolder
from diffrgen.pipeline.settings import save_json
from diffrgen.pipeline.source import StudySource
from diffrgen.records import Study
from diffrgen.reporting.calibration import read_calibration
from diffrgen.reporting.rater import SentenceRater
from diffrgen.reporting.writer import WrittenReport, run_decoding, write_reports
from diffrgen.retrieval import IndexedStudies
from diffrgen.text import ReportSections

MODEL_ROW, SHUFFLED_ROW = "DiffRGenNet", "DiffRGenNet, images shuffled"
CONFIDENCE = "Confidence of the model's sentences"
CONTEXT_ROW = "DiffRGenNet, context shuffled"
MARKS_ROW, UNMARKED_ROW = "DiffRGenNet, marks allowed", "DiffRGenNet, marks suppressed"


@dataclass(frozen=True)
class Evaluation:
    """Scores by row name (the model first), the folder with predictions.jsonl and metrics.json, the studies, what the
    model wrote for them, the decoding of each row that it wrote, its paired differences to each contender, and each row's
    scores against human labels, where these were given. confidence: of the model's sentences, where the run is calibrated.
    sections: the scores of findings and of impression alone, by row name, of a run that writes both.
    """

    scores: dict[str, Scores]
    folder: Path
    studies: Sequence[Study]
    written: Sequence[WrittenReport]
    decodings: Mapping[str, Decoding]
    differences: Mapping[str, Mapping[str, PairedDifference]]
    human: Mapping[str, HumanScores]
    published: PublishedData | None = None
    confidence: ConfidenceEvaluation | None = None
    sections: dict[str, Scores] = field(default_factory=dict)

    @property
    def model(self) -> Scores:
        """The scores of the model itself."""
        return self.scores[MODEL_ROW]

    def rows(self) -> dict[str, dict[str, Any]]:
        """Return the rows of the table: the run's, the baselines', and the paper's where asked for."""
        own = {name: scores.table_row() for name, scores in (self.scores | self.sections).items()}
        return own if self.published is None else own | published_rows(self.published)

    def print(self, *, title: str) -> None:
        """Print the columns of the paper's Table 1."""
        console = Console()
        console.print(terminal_table(self.rows(), title=f"{title}; labeler: {self.model.labeler}"))
        if self.differences:
            console.print(difference_terminal_table(self.differences, first=MODEL_ROW))
        for name, scores in self.human.items():
            console.print(f"{name}: {scores}", markup=False, highlight=False)
        if self.confidence is not None:
            console.print(f"{CONFIDENCE}: {self.confidence}", markup=False, highlight=False)


def evaluate(options: EvaluateOptions) -> Evaluation:
    """Evaluate a run; raises DataError for a folder that is no run, a split without studies, and unusable data."""
    run = RunFolder.open(options.run)
    settings = run.settings()
    options = replace(options, generation=options.generation.over(settings.generation))
    if options.output is not None and options.output.exists() and any(options.output.iterdir()):
        raise DataError(f"{options.output}: needed a new or empty folder, got one that holds files; choose another")
    check_may_write(options.output or run.evaluation_path)
    own_rows = (MODEL_ROW, SHUFFLED_ROW, CONTEXT_ROW, MARKS_ROW, UNMARKED_ROW)
    contenders = contender_files(options.contender, taken=(*own_rows, *BASELINES))
    human = None if options.human_labels is None else read_human_labels(options.human_labels)
    model = run.model(fused_kernels=options.fused_kernels)
    if options.shuffled_context and not model.config.context:
        raise DataError(f"{run.path}: needed a run that was trained with --model.context for --shuffled-context, got none")
    # Limits that this run cannot meet are rejected before any data are read.
    decoding = run_decoding(model, options.generation, max_tokens=settings.max_tokens)
    calibration, labeler = read_calibration(run), run_labeler(settings.labeler)
    if calibration is not None:
        calibration.warn_of(decoding)
    choice = SplitChoice(
        *(options.split, options.data, options.images, options.skip_broken),
        labeler=options.labeler,
        decoded=options.decoded,
    )
    source, studies = load_split(run, settings, model.config, choice)
    ids = [study.id for study in studies]
    others = read_contenders(contenders, ids)
    if human is not None:
        human.matrix(ids)

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model.to(device)
    prior = model.config.prior and options.priors
    dataset = run.dataset(model.config, settings, source, studies, key=choice.key, prior=prior, device=device)
    write = partial(write_reports, model, dataset, labeler=labeler, workers=options.workers)
    rater = None if calibration is None else SentenceRater(dataset.sources.tokenizer, labeler, calibration)
    written = {MODEL_ROW: write(options.generation, rater=rater)}
    decodings = {MODEL_ROW: decoding}
    if options.both_marks:
        suppressed = options.generation.suppress_marks
        name = MARKS_ROW if suppressed else UNMARKED_ROW
        generation = replace(options.generation, suppress_marks=not suppressed)
        written[name] = write(generation)
        decodings[name] = run_decoding(model, generation, max_tokens=settings.max_tokens)
    if options.shuffled_context:
        dataset.shuffle_contexts(settings.seed)
        written[CONTEXT_ROW] = write(options.generation)
        decodings[CONTEXT_ROW] = decodings[MODEL_ROW]
        dataset.introduced = list(range(len(dataset)))
    if options.shuffled_images:
        dataset.shuffle_images(settings.seed)
        written[SHUFFLED_ROW] = write(options.generation)
        decodings[SHUFFLED_ROW] = decodings[MODEL_ROW]

    is_phantom = (options.data or settings.data.data) == PHANTOM
    scores = score_beside_baselines(
        {name: [w.report for w in reports] for name, reports in written.items()} | others,
        [study.report for study in studies],
        dataset.states.numpy(),
        labeler=source.labeler,
        truth_from=source.truth(options.split),
        training_reports=_training_reports(dataset.sources.index.studies),
        protocol=options.protocol,
        radeval=options.radeval,
        statements=StatementTruth.of(studies, source.splits.train) if is_phantom else None,
        retrieved={name: [w.neighbour_reports for w in reports] for name, reports in written.items()},
        prompts={name: np.array([report.prompt for report in reports]) for name, reports in written.items()},
        baselines=options.baselines,
        indicated=_indicated_reports(run, model.config.context, dataset, source)
        if options.baselines
        else None,
        resamples=options.resamples,
    )
    folder = options.output or _new_folder(run.evaluation_path, choice.key)
    evaluation = Evaluation(
        scores=scores,
        folder=folder,
        studies=studies,
        written=written[MODEL_ROW],
        decodings=decodings,
        differences={
            name: paired_differences(scores[MODEL_ROW].paired, scores[name].paired, resamples=options.resamples)
            for name in others
        },
        human=_human_scores(human, ids, scores, written, resamples=options.resamples),
        published=options.published,
        confidence=None
        if calibration is None
        else evaluate_confidence(
            *(written[MODEL_ROW], [study.report for study in studies], calibration, labeler),
            split=options.split,
            data=choice.data_name,
            resamples=options.resamples,
        ),
        sections=_section_scores(written[MODEL_ROW], dataset, source, options) if settings.sections else {},
    )
    _write(evaluation, dataset)
    record = EvaluationRecord(
        split=options.split,
        data=choice.data_name,
        priors=prior,
        protocol=options.protocol,
        beams=decodings[MODEL_ROW].beams,
        weights=weights_digest(run.path),
        decoding=decodings[MODEL_ROW],
    )
    save_json(record, folder / RECORD)
    return evaluation


def _section_scores(
    written: Sequence[WrittenReport], dataset: StudyDataset, source: StudySource, options: EvaluateOptions
) -> dict[str, Scores]:
    """Return the scores of findings and of impression alone, by row name."""

    def references(studies: Sequence[Study]) -> list[ReportSections]:
        return [ReportSections(study.sections.findings, study.sections.impression) for study in studies]

    scores = score_sections(
        [report.sections for report in written if report.sections is not None],
        references(dataset.studies),
        labeler=source.labeler,
        training=references(source.splits.train),
        protocol=options.protocol,
        resamples=options.resamples,
    )
    return {f"{MODEL_ROW}, {section}": of_section for section, of_section in scores.items()}


def _indicated_reports(
    run: RunFolder, names: Sequence[ContextName], dataset: StudyDataset, source: StudySource
) -> list[str] | None:
    """Return for each study the report of the training study whose context is nearest; None if the run takes none.

    Only the context is looked at, so that the scores show what a report can copy without the image. Training studies are
    those of `source`; None, too, where it has none.
    """
    training = source.splits.train
    if dataset.contexts is None or not training:
        return None
    known = contexts_of_studies(run.retriever(), training, names, rules=dataset.sources.rules)
    return [training[place].report for place in nearest_contexts(known, dataset.contexts)]


def _human_scores(
    labels: HumanLabels | None,
    ids: Sequence[str],
    scores: Mapping[str, Scores],
    written: Mapping[str, Sequence[WrittenReport]],
    *,
    resamples: int,
) -> dict[str, HumanScores]:
    """Score each row of the table against human labels, where there are any."""
    if labels is None:
        return {}
    return {
        name: human_scores(labels, ids, row.states, _probabilities(written.get(name)), resamples=resamples)
        for name, row in scores.items()
    }


def _probabilities(reports: Sequence[WrittenReport] | None) -> dict[str, np.ndarray] | None:
    """Return the classifier's P(positive) (n,) by finding; None for reports that came without."""
    if reports is None:
        return None
    return {
        name: np.array([report.positive_probability[name] for report in reports])
        for name in reports[0].positive_probability
    }


def _training_reports(studies: IndexedStudies) -> list[str]:
    """Return the cleaned report of each training study, as the index holds them."""
    return [studies.report(row) for row in range(len(studies))]


def _new_folder(parent: Path, name: str) -> Path:
    """Make the first of parent/name, parent/name-2, ... that does not exist: earlier results are kept."""
    number, folder = 1, parent / name
    while True:
        try:
            folder.mkdir(parents=True)
            return folder
        # Also one that another evaluation has made just now.
        except FileExistsError:
            number += 1
            folder = parent / f"{name}-{number}"


def _write(evaluation: Evaluation, dataset: StudyDataset) -> None:
    """Write predictions.jsonl, metrics.json and table.md."""
    evaluation.folder.mkdir(parents=True, exist_ok=True)
    sections: Sequence[ReportSections | None] = dataset.sections or [None] * len(dataset)
    with (evaluation.folder / "predictions.jsonl").open("w", encoding="utf-8") as lines:
        for study, reference, own, report in zip(
            *(dataset.studies, dataset.reports, sections, evaluation.written), strict=True
        ):
            reasons = report.to_dict()
            record = {"id": study.id, "reference": reference, "hypothesis": reasons.pop("report"), **reasons}
            if own is not None:
                record["reference_sections"] = own._asdict()
            lines.write(json.dumps(record, ensure_ascii=False) + "\n")
    rows = evaluation.scores | evaluation.sections
    metrics = {name: scores.to_dict() for name, scores in rows.items()}
    for name, decoding in evaluation.decodings.items():
        metrics[name]["decoding"] = asdict(decoding)
    for name, differences in evaluation.differences.items():
        metrics[name]["model_minus_this"] = {score: each.to_dict() for score, each in differences.items()}
    for name, human in evaluation.human.items():
        metrics[name]["human_labels"] = human.to_dict()
    if evaluation.confidence is not None:
        metrics[MODEL_ROW]["confidence"] = evaluation.confidence.to_dict()
        draw_confidence(evaluation.confidence.scores, evaluation.folder)
    (evaluation.folder / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
    intervals = markdown_table({name: scores.interval_row() for name, scores in rows.items()})
    table = f"{markdown_table(evaluation.rows())}\n95 % intervals (bootstrap over studies):\n\n{intervals}"
    if evaluation.differences:
        table += f"\nPaired differences (95 % interval, p):\n\n{difference_table(evaluation.differences, first=MODEL_ROW)}"
    if evaluation.human:
        human_lines = "".join(f"- {name}: {scores}\n" for name, scores in evaluation.human.items())
        table += f"\nAgainst human labels:\n\n{human_lines}"
    if evaluation.confidence is not None:
        table += f"\n{CONFIDENCE}: {evaluation.confidence}\n"
    (evaluation.folder / "table.md").write_text(table, encoding="utf-8")

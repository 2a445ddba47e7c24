"""Generates reports with a trained network, each with its states, neighbours and routing."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Subset
from tqdm import tqdm
from transformers import PreTrainedTokenizerFast

from diffrgen.labels import AUXILIARY, FINDINGS, Labeler, Severity, State
from diffrgen.model import DiffRGenForReportGeneration, GeneratedReports, StudyInputs
from diffrgen.pipeline.dataset import StudyDataset, example_loader
from diffrgen.pipeline.generation import Decoding
from diffrgen.pipeline.options import GenerationOptions
from diffrgen.records import VIEW_KINDS, ViewKind
from diffrgen.reporting.candidates import agreeing_candidates
from diffrgen.reporting.confidence import NotMentioned, SentenceConfidence
from diffrgen.reporting.rater import SentenceRater
from diffrgen.retrieval import Neighbours, RetrievalIndex
from diffrgen.text import ReportSections, decode_report, split_sections
from diffrgen.text.marks import mark_suppressor


@dataclass(frozen=True)
class RetrievedReport:
    """A retrieved training study: its id, its similarity to the image (cosine) and its report."""

    id: str
    similarity: float
    report: str


@dataclass(frozen=True)
class GeneratedReport:
    """A generated report and its explanation.

    states and positive_probability: the classifier's, one per finding; severities: its severity of each positive finding
    whose severity the report is to state, None if the network has no severities; neighbours: most similar first; routing: the
    weights alpha of each layer's masks (Eq. 7), those for similar features first; views: the kind of each image's view, as
    given or classified, empty if the network takes one image. confidence: one for each sentence of the report, in order;
    not_mentioned: probable findings that the report omits, the most probable first. Both are None if the
    run has no calibration (`python -m diffrgen.calibrate`). sections: findings and impression of a run that generates both,
    whose `report` is their concatenation; None for a run that generates one text.
    """

    report: str
    states: dict[str, str]
    positive_probability: dict[str, float]
    neighbours: tuple[RetrievedReport, ...]
    routing: tuple[tuple[float, ...], ...]
    views: tuple[ViewKind, ...] = ()
    confidence: tuple[SentenceConfidence, ...] | None = None
    not_mentioned: tuple[NotMentioned, ...] | None = None
    sections: ReportSections | None = None
    severities: dict[str, str] | None = None

    def severity_of(self, finding: str) -> str | None:
        """Return the severity of a finding, None if there is none."""
        return (self.severities or {}).get(finding)

    @property
    def neighbour_reports(self) -> tuple[str, ...]:
        """The reports of the neighbours, most similar first."""
        return tuple(neighbour.report for neighbour in self.neighbours)

    @property
    def prompt(self) -> list[int]:
        """The states as numbers (see `State`), one per finding."""
        return [State[name.upper()] for name in self.states.values()]

    def to_dict(self) -> dict[str, object]:
        """Return plain values for JSON; without `confidence` and `not_mentioned` if the run has no calibration, without
        `sections` if it generates one text, and without `severities` if its network has none.
        """
        content = asdict(self)
        if self.sections is not None:
            content["sections"] = self.sections._asdict()
        for name in ("confidence", "not_mentioned", "sections", "severities"):
            if content[name] is None:
                del content[name]
        return content


@dataclass(frozen=True)
class GeneratedBatch:
    """Reports of one batch; inputs: the arguments of `model.encode`, on its device; generated: the network's output."""

    inputs: StudyInputs
    generated: GeneratedReports
    reports: list[GeneratedReport]


def write_reports(
    model: DiffRGenForReportGeneration,
    dataset: StudyDataset,
    options: GenerationOptions,
    *,
    labeler: Labeler | None = None,
    rows: Sequence[int] | None = None,
    workers: int = 0,
    progress: bool = True,
    rater: SentenceRater | None = None,
) -> list[GeneratedReport]:
    """Generate a report for every study of `dataset`, or for those in `rows`, in order; labeler and rater: as in
    `write_batch`.
    """
    model.eval()
    rows = range(len(dataset)) if rows is None else rows
    loader = example_loader(Subset(dataset, rows), batch_size=options.batch_size, workers=workers)
    settings = dataset.settings
    written: list[GeneratedReport] = []
    with tqdm(total=len(rows), desc="writing reports", unit="study", disable=not progress, leave=False) as bar:
        for batch in loader:
            shown = [dataset.image_rows[row] for row in rows[len(written) : len(written) + len(batch["states"])]]
            evidence = [retrieved_reports(settings.index, dataset.neighbours, row) for row in shown]
            done = write_batch(
                *(model, StudyInputs.of(batch), settings.tokenizer, evidence, options),
                max_tokens=settings.max_tokens,
                labeler=labeler,
                first=rows[len(written)],
                rater=rater,
            )
            written += done.reports
            bar.update(len(shown))
    return written


def write_batch(
    model: DiffRGenForReportGeneration,
    inputs: StudyInputs,
    tokenizer: PreTrainedTokenizerFast,
    evidence: Sequence[tuple[RetrievedReport, ...]],
    options: GenerationOptions,
    *,
    max_tokens: int,
    labeler: Labeler | None = None,
    first: int = 0,
    rater: SentenceRater | None = None,
) -> GeneratedBatch:
    """Generate the reports of a batch; `evidence`: the retrieved reports of each study.

    max_tokens: the run's limit; labeler: labels the candidates of a study, if there are several; first: number of the
    batch's first study, which varies the seed of sampling; rater: rates the sentences, None if the run has no
    calibration. Raises ValueError for candidates without a labeler.
    """
    decoding = run_decoding(model, options, max_tokens=max_tokens)
    inputs = inputs.to(model.device)
    arguments = decoding.arguments()
    if decoding.suppress_marks:
        arguments["logits_processor"] = [mark_suppressor(tokenizer)]
    if decoding.candidates > 1:
        arguments["candidates"] = agreeing_candidates(decoding, tokenizer, labeler)
    with (
        torch.autocast(model.device.type, dtype=torch.bfloat16, enabled=decoding.precision == "bf16"),
        _seeded(decoding, first),
    ):
        generated = model.write_reports(inputs, token_scores=rater is not None, **arguments)
    texts = [decode_report(tokenizer, ids) for ids in generated.sequences]
    reports = list(explain(generated, texts, evidence, inputs.view_counts.tolist()))
    sections = [split_sections(tokenizer, ids) for ids in generated.sequences.tolist()]
    reports = [replace(report, sections=own) for report, own in zip(reports, sections, strict=True)]
    if rater is not None:
        reports = [_rated(report, rater, generated, row) for row, report in enumerate(reports)]
    return GeneratedBatch(inputs, generated, reports)


def _rated(report: GeneratedReport, rater: SentenceRater, generated: GeneratedReports, row: int) -> GeneratedReport:
    """Return a report with the ratings of its sentences."""
    rating = rater.rate(generated, row, report.report, report.neighbour_reports)
    return replace(report, confidence=rating.confidence, not_mentioned=rating.not_mentioned)


def run_decoding(model: DiffRGenForReportGeneration, options: GenerationOptions, *, max_tokens: int) -> Decoding:
    """Return the decoding of `options` for a run's network and its limit of tokens.

    Raises DataError for limits that leave no report or exceed the decoder's positions; warns of reports that are longer
    than any in training.
    """
    # The start token and one prompt token a finding stand before the report.
    prompt = 1 + model.config.findings
    decoding = options.decoding(run_tokens=max_tokens, room=model.config.decoder.max_position_embeddings - prompt)
    if decoding.max_tokens > max_tokens:
        warnings.warn(
            f"reports of up to {decoding.max_tokens} tokens were requested, but this run was trained on at most "
            f"{max_tokens}: its decoder has not learned the positions beyond",
            stacklevel=2,
        )
    return decoding


@contextmanager
def _seeded(decoding: Decoding, first: int) -> Iterator[None]:
    """Seed the draws within the block by the decoding's seed and the batch's position, then restore the generators."""
    if not decoding.sample and decoding.candidates == 1:
        yield
        return
    with torch.random.fork_rng():
        torch.manual_seed(int(np.random.SeedSequence((decoding.seed, first)).generate_state(1)[0]))
        yield


def explain(
    generated: GeneratedReports,
    texts: Sequence[str],
    evidence: Sequence[tuple[RetrievedReport, ...]],
    view_counts: Sequence[int],
) -> Iterator[GeneratedReport]:
    """Join each report with its disease states, neighbours, routing weights and the kinds of its views."""
    for row, (text, neighbours, views) in enumerate(zip(texts, evidence, view_counts, strict=True)):
        states = named_states(generated.states[row])
        kinds = [] if generated.view_kinds is None else generated.view_kinds[row, :views].tolist()
        yield GeneratedReport(
            report=text,
            states=states,
            positive_probability=dict(zip(states, _rounded(generated.positive_probability[row]), strict=True)),
            neighbours=neighbours,
            routing=tuple(_rounded(alpha[row]) for alpha in generated.routing),
            views=tuple(VIEW_KINDS[kind] for kind in kinds),
            severities=None if generated.severities is None else named_severities(generated.severities[row]),
        )


def named_states(states: Tensor) -> dict[str, str]:
    """Return the name of each state (C,), by the finding's name."""
    return {finding: State(state).name.lower() for finding, state in _by_finding(states)}


def named_severities(severities: Tensor) -> dict[str, str]:
    """Return the name of each severity (C,) that is not "unstated", by the finding's name."""
    named = {finding: Severity(severity) for finding, severity in _by_finding(severities)}
    return {finding: severity.name.lower() for finding, severity in named.items() if severity}


def _by_finding(values: Tensor) -> Iterator[tuple[str, int]]:
    return zip((FINDINGS + AUXILIARY)[: len(values)], values.tolist(), strict=True)


def retrieved_reports(index: RetrievalIndex, neighbours: Neighbours, row: int) -> tuple[RetrievedReport, ...]:
    """Return the studies in `row` of `neighbours`, most similar first."""
    return tuple(
        RetrievedReport(index.studies.ids[study], round(float(similarity), 4), index.studies.report(study))
        for study, similarity, valid in zip(
            neighbours.rows[row], neighbours.similarity[row], neighbours.valid[row], strict=True
        )
        if valid
    )


def _rounded(shares: Tensor) -> tuple[float, ...]:
    return tuple(round(share, 4) for share in shares.to(torch.float32).tolist())

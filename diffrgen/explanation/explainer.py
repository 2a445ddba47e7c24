"""Reports with reasons: written by a reporter, explained by one more pass of its network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from diffrgen.errors import DataError
from diffrgen.explanation.attention import attention_shares, cross_attention
from diffrgen.explanation.differences import compare_neighbours, compare_prior, neighbour_metrics
from diffrgen.explanation.explained import ExplainedPrior, ExplainedReport
from diffrgen.explanation.recording import recorded
from diffrgen.explanation.routes import layer_routes
from diffrgen.explanation.seen import findings_attention, routing_layers, seen_findings
from diffrgen.explanation.sentences import ReportSentence, mark_shared
from diffrgen.images import ImageTransform
from diffrgen.model.rows import given_or_true
from diffrgen.model.views import mean_of_present
from diffrgen.pipeline.options import GenerationOptions
from diffrgen.records import Sections, main_view
from diffrgen.reporting.prior_study import PriorStudy
from diffrgen.reporting.reporter import Reporter, Unreadable
from diffrgen.reporting.study_images import Picture, StudyImages
from diffrgen.reporting.writer import GeneratedBatch, named_states
from diffrgen.text import clean_report, decode_report, report_sentences, same_words, token_spans
from diffrgen.text.sections import impression_id


@dataclass(frozen=True)
class Reasons:
    """Results of one more pass over a batch, on the CPU.

    seen (B, C, m): where each finding is seen, None without finding queries.
    grid (gh, gw) of a view's patches; attention (B, T, memory); metrics (B, N, 3) of the retrieved reports; prior_metrics
    (B, R, 3) of the prior study's rows, None if no study of the batch has one.
    """

    grid: tuple[int, int]
    attention: Tensor
    metrics: Tensor
    prior_metrics: Tensor | None
    seen: Tensor | None


class Explainer:
    """Writes reports with a loaded run and takes the reasons from its network: one more encoding and one pass a batch."""

    def __init__(self, reporter: Reporter) -> None:
        """Raises DataError for a network without difference features and routing to explain a report by."""
        if reporter.model.memory is not None:
            raise DataError(
                "needed a network of variant 'diffrgen', whose differences and windows explain a report, got "
                "'promptmrg'; generate reports without an explanation"
            )
        self.reporter = reporter

    def explain(
        self,
        images: Sequence[Picture | StudyImages],
        options: GenerationOptions | None = None,
        priors: Sequence[PriorStudy | None] | None = None,
        *,
        context: Sequence[Sections | None] | None = None,
        unreadable: Unreadable | None = None,
    ) -> Iterator[ExplainedReport]:
        """Yield the explained report of each study, in order; arguments and errors are those of `Reporter.write`."""
        batches = self.reporter.write_batches(images, options, priors, context=context, unreadable=unreadable)
        for positions, batch in batches:
            reasons = self._reasons(batch)
            for row, position in enumerate(positions):
                prior = None if priors is None else priors[position]
                yield self._explained(row, position, batch, reasons, prior)

    @torch.no_grad()
    def _reasons(self, batch: GeneratedBatch) -> Reasons:
        model, generated, inputs = self.reporter.model, batch.generated, batch.inputs
        patch_features = model.patch_projection if model.view_marks is None else model.view_marks
        modules: list[nn.Module] = [model.image_encoder, patch_features, model.report_projection]
        modules += [] if inputs.prior is None or model.prior is None else [model.prior]
        layers = routing_layers(model)
        with recorded(*layers, *modules) as calls:
            encoded = model.encode(inputs)
        pictured, patches, reports, *earlier = calls[len(layers) :]
        seen = findings_attention(model, calls[: len(layers)])
        z, f = reports[0].output, _mean_of_views(patches[0].output, inputs.view_mask)  # of Eq. 1
        examples = self.reporter.example_settings
        tokens = examples.index.manifest.token_length if examples.token_features else 1
        mask = given_or_true(inputs.retrieved_mask, z)
        metrics = neighbour_metrics(z, f, mask.unflatten(1, (-1, tokens)))
        prior_metrics = None
        if earlier:
            rows = earlier[0][0].output
            prior_metrics = neighbour_metrics(rows, f, given_or_true(inputs.prior_mask, rows)[..., None]).cpu()
        attention = cross_attention(model, encoded, generated.states, generated.sequences)
        seen = None if seen is None else seen.cpu()
        return Reasons(pictured[0].output.grid, attention.cpu(), metrics.cpu(), prior_metrics, seen)

    def _explained(
        self, row: int, position: int, batch: GeneratedBatch, reasons: Reasons, prior: PriorStudy | None
    ) -> ExplainedReport:
        written, inputs, config = batch.reports[row], batch.inputs, self.reporter.model.config
        sentences = self._sentences(row, batch, reasons)
        texts = [sentence.text for sentence in sentences]
        metrics = reasons.metrics[row, : len(written.neighbours)]
        return ExplainedReport(
            written=written,
            position=position,
            images=np.stack(
                [
                    _grey(view.cpu(), self.reporter.example_settings.transform)
                    for view in inputs.pixel_values[row, : int(inputs.view_counts[row])]
                ]
            ),
            sentences=sentences,
            neighbour_sentences=tuple(mark_shared(neighbour.report, texts) for neighbour in written.neighbours),
            differences=tuple(compare_neighbours(metrics, config.difference_metrics)),
            # Windows that follow each row's attention are not drawn; the picture shows windows at fixed positions.
            routes=()
            if config.centres == "attention"
            else layer_routes(
                written.routing,
                layers=len(config.masks_per_layer),
                grid=reasons.grid,
                reports=inputs.retrieved.shape[1],
            ),
            prior=None if prior is None else self._prior(prior, row, batch, reasons, texts),
            seen=()
            if reasons.seen is None
            else seen_findings(reasons.seen[row], reasons.grid, view=main_view(written.views)),
        )

    def _prior(
        self, prior: PriorStudy, row: int, batch: GeneratedBatch, reasons: Reasons, texts: Sequence[str]
    ) -> ExplainedPrior:
        inputs = batch.inputs
        assert reasons.prior_metrics is not None
        assert inputs.prior_states is not None
        reporter = self.reporter
        rows = reasons.prior_metrics[row]
        if inputs.prior_mask is not None:
            rows = rows[inputs.prior_mask[row].cpu()]
        metrics = reasons.metrics[row, : len(batch.reports[row].neighbours)]
        report = clean_report(prior.report or "", rules=reporter.settings.rules)
        image = None if prior.image is None else reporter.pixel_values(prior.image)
        return ExplainedPrior(
            states=named_states(inputs.prior_states[row]),
            image=None if image is None else _grey(image, reporter.example_settings.transform),
            sentences=mark_shared(report, texts),
            differences=tuple(compare_prior(rows, metrics, reporter.model.config.difference_metrics)),
        )

    def _sentences(self, row: int, batch: GeneratedBatch, reasons: Reasons) -> tuple[ReportSentence, ...]:
        """Cut a report into sentences, each with the mean attention of its tokens."""
        tokenizer, ids = self.reporter.example_settings.tokenizer, batch.generated.sequences[row].tolist()
        views, of_batch = int(batch.inputs.view_counts[row]), batch.inputs.pixel_values.shape[1]
        patches, retrieved = of_batch * reasons.grid[0] * reasons.grid[1], batch.inputs.retrieved.shape[1]
        rows = retrieved + (0 if batch.inputs.prior is None else batch.inputs.prior.shape[1])
        sections = len(self.reporter.model.config.context)
        others = [_sentence_words(neighbour.report) for neighbour in batch.reports[row].neighbours]
        begin, sentences = impression_id(tokenizer), []
        for start, end in token_spans(tokenizer, ids):
            text = decode_report(tokenizer, ids[start:end])
            mean = reasons.attention[row, start:end].mean(0)  # (memory,)
            # Absent views, which are padding behind the others, get no attention.
            heat = mean[:patches].numpy().reshape(of_batch, *reasons.grid)[:views]
            sentences.append(
                ReportSentence(
                    text=text,
                    heat=heat / heat.sum(),
                    shares=attention_shares(mean, patches=patches, retrieved=retrieved, rows=rows, context=sections),
                    shared_with=tuple(place for place, words in enumerate(others) if same_words(text) in words),
                    section=None if begin is None else "impression" if begin in ids[:start] else "findings",
                )
            )
        return tuple(sentences)


def _mean_of_views(patches: Tensor, view_mask: Tensor | None) -> Tensor:
    """Return the mean (B, d) of patches (B, V m, d) over the views in view_mask (B, V)."""
    if view_mask is None:
        return patches.mean(dim=1)
    return mean_of_present(patches.unflatten(1, (view_mask.shape[1], -1)).mean(dim=2), view_mask)


def _sentence_words(report: str) -> set[tuple[str, ...]]:
    return {same_words(sentence) for sentence in report_sentences(report)}


def _grey(pixel_values: Tensor, transform: ImageTransform) -> np.ndarray:
    """Return the grey image (S, S) uint8 of an evaluation transform's pixel values (C, S, S)."""
    mean, std = (value if isinstance(value, (int, float)) else value[0] for value in (transform.mean, transform.std))
    return (255.0 * (pixel_values[0] * std + mean)).round().clamp(0, 255).to(torch.uint8).numpy()

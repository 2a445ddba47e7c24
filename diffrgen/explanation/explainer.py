"""Reports with reasons: written by a reporter, explained by one more pass of its network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from diffrgen.evaluation.prior_study import PriorStudy
from diffrgen.evaluation.reporter import Picture, Reporter, Unreadable
from diffrgen.evaluation.writer import WrittenBatch, WrittenReport
from diffrgen.explanation.attention import attention_shares, cross_attention
from diffrgen.explanation.differences import compare_neighbours, neighbour_metrics
from diffrgen.explanation.explained import ExplainedReport, NeighbourSentence
from diffrgen.explanation.recording import recorded
from diffrgen.explanation.routes import layer_routes
from diffrgen.explanation.sentences import ReportSentence, same_words, text_sentences, token_spans
from diffrgen.images import ImageTransform
from diffrgen.pipeline.options import GenerationOptions
from diffrgen.text import decode_report


class Explainer:
    """Writes reports with a loaded run and takes the reasons from its network: one more encoding and one pass a batch."""

    def __init__(self, reporter: Reporter) -> None:
        self.reporter = reporter

    def explain(
        self,
        images: Sequence[Picture],
        options: GenerationOptions,
        priors: Sequence[PriorStudy | None] | None = None,
        *,
        unreadable: Unreadable | None = None,
    ) -> Iterator[ExplainedReport]:
        """Yield the explained report of each image, in order; arguments and errors are those of `Reporter.write`."""
        for positions, batch in self.reporter.write_batches(images, options, priors, unreadable=unreadable):
            yield from self._explained(positions, batch)

    @torch.no_grad()
    def _explained(self, positions: Sequence[int], batch: WrittenBatch) -> Iterator[ExplainedReport]:
        model, generated = self.reporter.model, batch.generated
        with recorded(model.difference, model.image_encoder) as (compared, pictured):
            encoded = model.encode(**batch.inputs)
        weights = cross_attention(model, encoded, generated.states, generated.sequences).cpu()  # (B, T, memory)
        metrics = self._metrics(*compared[0].inputs, batch).cpu()  # (B, N, 3)
        grid = pictured[0].output.grid
        for row, (position, written) in enumerate(zip(positions, batch.reports, strict=True)):
            shown = batch.inputs["pixel_values"][row].cpu()
            ids = generated.sequences[row].tolist()
            present = len(written.neighbours)
            yield ExplainedReport(
                written=written,
                position=position,
                image=_grey(shown, self.reporter.sources.transform),
                sentences=self._sentences(ids, weights[row], grid, written),
                neighbour_sentences=_marked(written),
                differences=tuple(compare_neighbours(metrics[row, :present], model.config.difference_metrics)),
                routes=layer_routes(
                    written.routing,
                    layers=len(model.config.masks_per_layer),
                    grid=grid,
                    reports=batch.inputs["retrieved"].shape[1],
                ),
            )

    def _metrics(self, z: Tensor, f: Tensor, batch: WrittenBatch) -> Tensor:
        tokens = self.reporter.sources.index.manifest.token_length if self.reporter.sources.token_features else 1
        return neighbour_metrics(z, f, batch.inputs["retrieved_mask"].unflatten(1, (-1, tokens)))

    def _sentences(
        self, ids: Sequence[int], weights: Tensor, grid: tuple[int, int], written: WrittenReport
    ) -> tuple[ReportSentence, ...]:
        """Cut the report into sentences, with the mean attention of the tokens of each; weights (T, memory)."""
        tokenizer = self.reporter.sources.tokenizer
        patches = grid[0] * grid[1]
        said = [{same_words(s) for s in text_sentences(neighbour.report)} for neighbour in written.neighbours]
        sentences = []
        for start, end in token_spans(tokenizer, ids):
            text = decode_report(tokenizer, ids[start:end])
            mean = weights[start:end].mean(0)
            heat = mean[:patches].numpy()
            sentences.append(
                ReportSentence(
                    text=text,
                    heat=(heat / heat.sum()).reshape(grid),
                    shares=attention_shares(mean, patches),
                    shared_with=tuple(place for place, words in enumerate(said) if same_words(text) in words),
                )
            )
        return tuple(sentences)


def _marked(written: WrittenReport) -> tuple[tuple[NeighbourSentence, ...], ...]:
    """Cut the retrieved reports into sentences and mark those that the report shares."""
    own = {same_words(sentence) for sentence in text_sentences(written.report)}
    return tuple(
        tuple(NeighbourSentence(text, same_words(text) in own) for text in text_sentences(neighbour.report))
        for neighbour in written.neighbours
    )


def _grey(pixel_values: Tensor, transform: ImageTransform) -> np.ndarray:
    """Return the grey image (S, S) uint8 of an evaluation transform's pixel values (C, S, S)."""
    mean, std = (
        value if isinstance(value, (int, float)) else value[0] for value in (transform.mean, transform.std)
    )
    return (255.0 * (pixel_values[0] * std + mean)).round().clamp(0, 255).to(torch.uint8).numpy()

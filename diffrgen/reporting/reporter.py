"""Reports for any studies, without a data set: reads the images, retrieves, generates."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from diffrgen.errors import DataError
from diffrgen.images import ResizedImages, read_resized
from diffrgen.labels import DISEASES
from diffrgen.model import StudyInputs
from diffrgen.model.choices import ContextName
from diffrgen.pipeline.contexts import context_texts, embed_contexts
from diffrgen.pipeline.dataset import Example, neighbour_features, prior_states
from diffrgen.pipeline.labeler import NamedLabeler, run_labeler
from diffrgen.pipeline.options import GenerationOptions
from diffrgen.pipeline.run_check import check_retriever
from diffrgen.pipeline.run_folder import RunFolder
from diffrgen.pipeline.views import kind_numbers, padded_views
from diffrgen.records import NO_SECTIONS, Sections
from diffrgen.reporting.calibration import read_calibration
from diffrgen.reporting.prior_study import PriorStudy
from diffrgen.reporting.rater import SentenceRater
from diffrgen.reporting.study_images import Picture, StudyImages
from diffrgen.reporting.writer import (
    GeneratedBatch,
    GeneratedReport,
    named_states,
    retrieved_reports,
    run_decoding,
    write_batch,
)
from diffrgen.retrieval import Neighbours
from diffrgen.retrieval.neighbours import embed_views
from diffrgen.retrieval.priors import embed_sentences, prior_sentences, stack_rows
from diffrgen.retrieval.retriever import EvaluationTransform

Unreadable = Callable[[int, DataError], None]
"""Called with the position of a study that cannot be read, and the reason."""


class ReadPrior(NamedTuple):
    """A prior study as input of the network: rows (R, E), which of them are real (R,) bool, disease states (C,) int64."""

    rows: Tensor
    mask: Tensor
    states: Tensor


class ReadStudy(NamedTuple):
    """A study of V images as the networks take it: the retriever's and the model's pixel values (V, C, S, S), the kinds of
    its views (V,) int64, its prior, and the text of each section of the network's context, "" if there is none.
    """

    query: Tensor
    shown: Tensor
    kinds: Tensor
    prior: ReadPrior | None
    context: list[str]


class Reporter:
    """A run that is loaded once and generates reports for any studies, on the GPU if there is one.

    run: its folder, or the hub name owner/name[@revision] of a shared one.
    """

    def __init__(self, run: str | Path, *, fused_kernels: bool = True) -> None:
        folder = RunFolder.open(run)
        self.settings = folder.settings()
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model = folder.model(fused_kernels=fused_kernels).to(self.device)
        self.example_settings = folder.example_settings(self.model.config, self.settings)
        self.retriever = folder.retriever().to(self.device)
        check_retriever(self.retriever, self.example_settings.index)
        self.calibration = read_calibration(folder)

    def write(
        self,
        images: Sequence[Picture | StudyImages],
        options: GenerationOptions | None = None,
        priors: Sequence[PriorStudy | None] | None = None,
        *,
        context: Sequence[Sections | None] | None = None,
        unreadable: Unreadable | None = None,
    ) -> Iterator[GeneratedReport]:
        """Yield the report of each study, of an image or of several (`StudyImages`), in order.

        options: decoding; unset options are those that the run was trained with.
        priors: the patient's prior study for each study, None if there is none. context: the sections known
        before the images are read, such as `Sections(indication="Cough.")`. unreadable: called for each study with a
        file that cannot be read; the other studies continue.

        Raises DataError, unless `unreadable` is given, for a file that cannot be read and for more images than the run
        takes; always for a prior or a section that the run does not take.
        """
        for _, batch in self.write_batches(images, options, priors, context=context, unreadable=unreadable):
            yield from batch.reports

    def write_batches(
        self,
        images: Sequence[Picture | StudyImages],
        options: GenerationOptions | None = None,
        priors: Sequence[PriorStudy | None] | None = None,
        *,
        context: Sequence[Sections | None] | None = None,
        unreadable: Unreadable | None = None,
    ) -> Iterator[tuple[list[int], GeneratedBatch]]:
        """Yield batches of `options.batch_size` readable studies with their positions; all else is as in `write`."""
        options = (options or GenerationOptions()).over(self.settings.generation)
        # Limits that this run cannot meet are rejected before an image is decoded.
        decoding = run_decoding(self.model, options, max_tokens=self.example_settings.max_tokens)
        if self.calibration is not None:
            self.calibration.warn_of(decoding)
        read: dict[int, ReadStudy] = {}
        known = self._checked_context(context, len(images))
        for position, (image, prior) in enumerate(zip(images, self._checked(priors, len(images)), strict=True)):
            try:
                read[position] = self._read(StudyImages.of(image), prior, known[position])
            except DataError as error:
                if unreadable is None:
                    raise
                unreadable(position, error)
            if len(read) == options.batch_size or (read and position + 1 == len(images)):
                yield list(read), self._write(list(read.values()), options, first=next(iter(read)))
                read = {}

    @property
    def image_sizes(self) -> tuple[int | None, ...]:
        """The sizes at which retriever and network read an image: values of `resize` for `read_resized`, without repeats."""
        return tuple(dict.fromkeys(transform.resize for transform in self._transforms))

    @property
    def takes_views(self) -> int:
        """The most images of a study that the run's network takes."""
        return self.model.config.views

    @property
    def takes_priors(self) -> bool:
        """Whether the run's model was trained with prior studies."""
        return self.model.config.prior

    @property
    def takes_context(self) -> tuple[ContextName, ...]:
        """The sections that the run's model takes, such as the indication."""
        return self.model.config.context

    def _checked_context(self, context: Sequence[Sections | None] | None, studies: int) -> list[list[str]]:
        """Return the cleaned text of each section that the run takes of each study."""
        if context is None:
            return [[""] * len(self.takes_context)] * studies
        if len(context) != studies:
            raise ValueError(f"expected the context of each study or None, got {len(context)} for {studies} studies")
        given = {name for sections in context if sections is not None for name in sections.to_record()}
        refused = sorted(given - set(self.takes_context))
        if refused:
            takes = " and ".join(self.takes_context) or "no such text"
            raise DataError(
                f"this run was trained without the {' and '.join(refused)} of a study and accepts {takes}; remove it"
            )
        rules = self.settings.rules
        return [context_texts(sections or NO_SECTIONS, self.takes_context, rules=rules) for sections in context]

    def _checked(self, priors: Sequence[PriorStudy | None] | None, images: int) -> Sequence[PriorStudy | None]:
        """Return one prior or None a study."""
        if priors is None:
            return [None] * images
        if len(priors) != images:
            raise ValueError(f"expected one prior or None an image, got {len(priors)} for {images} images")
        if any(priors) and not self.takes_priors:
            raise DataError("this run was trained without prior studies and accepts no prior; remove it")
        return priors

    @property
    def _transforms(self) -> tuple[EvaluationTransform, EvaluationTransform]:
        """The transforms of the retriever and of the network."""
        return self.retriever.image_transform, self.example_settings.transform

    def _read(self, study: StudyImages, prior: PriorStudy | None, context: list[str]) -> ReadStudy:
        """Read a study and its prior for both networks; a file is read once for one size."""
        if len(study.images) > self.takes_views:
            raise DataError(
                f"this run's network accepts {self.takes_views} image(s) per study, got {len(study.images)}: {study.name}; "
                "several images require a network trained on studies with several images"
            )
        query, shown = self._transforms
        queries, pixels = [], []
        for image in study.images:
            pictures = {size: _picture(image, size) for size in self.image_sizes}
            queries.append(query(pictures[query.resize]))
            pixels.append(shown(pictures[shown.resize]))
        earlier = None if prior is None else self._read_prior(prior)
        return ReadStudy(torch.stack(queries), torch.stack(pixels), kind_numbers(study.views), earlier, context)

    def pixel_values(self, image: Picture) -> Tensor:
        """Return an image as the network sees it, (C, S, S); DataError names a file that cannot be read."""
        return self.example_settings.transform(_picture(image, self.example_settings.transform.resize))

    def _read_prior(self, prior: PriorStudy) -> ReadPrior:
        """Embed the prior, and get its disease states from the report or, without one, from the image."""
        report = prior.report or ""
        sentences = prior_sentences(report, rules=self.settings.rules)
        embedded_report = embed_sentences(self.retriever, sentences)
        if prior.image is None:
            (rows, mask), states = stack_rows(None, embedded_report), self._states_of_prior(report)
        else:
            seen = self._read(StudyImages.of(prior.image), None, [""] * len(self.takes_context))
            embedded = self._embed([seen])
            rows, mask = stack_rows(embedded[0], embedded_report)
            states = self._states_of_prior(report) if sentences else self._seen_states(seen, embedded)
        return ReadPrior(torch.from_numpy(rows), torch.from_numpy(mask), states)

    @cached_property
    def _labeler(self) -> NamedLabeler:
        """The run's labeler; see `run_labeler`."""
        return run_labeler(self.settings.labeler)

    @cached_property
    def _rater(self) -> SentenceRater | None:
        """The rater of sentences; None for a run without a calibration."""
        if self.calibration is None:
            return None
        return SentenceRater(self.example_settings.tokenizer, self._labeler, self.calibration)

    def stated_findings(self, texts: Sequence[str]) -> list[dict[str, str]]:
        """Return, for each text, the diseases and devices that it states: "positive", "negative" or "uncertain"."""
        if not texts:
            return []
        states = [named_states(torch.from_numpy(row)) for row in self._labeler(texts)]
        return [{name: state for name, state in row.items() if state != "blank" and name in DISEASES} for row in states]

    def _states_of_prior(self, report: str) -> Tensor:
        """Return the states (C,) of a report."""
        return prior_states(self._labeler([report])[0].tolist(), self.example_settings.findings)

    @torch.no_grad()
    def _seen_states(self, study: ReadStudy, embedded: np.ndarray) -> Tensor:
        """Return the states (C,) that the network itself finds most likely in an image, embedded as (1, E)."""
        inputs, _ = self._inputs([study], embedded)
        encoded = self.model.encode(inputs.to(self.device))
        return encoded.disease_logits[0].argmax(0).cpu()

    def _no_prior(self) -> ReadPrior:
        rows, mask = map(torch.from_numpy, stack_rows(None, embed_sentences(self.retriever, [])))
        return ReadPrior(rows, mask, prior_states(None, self.example_settings.findings))

    def _prior_inputs(self, studies: Sequence[ReadStudy]) -> Example:
        """Return the priors, stacked; nothing at all where no study has one."""
        if all(study.prior is None for study in studies):
            return {}
        priors = [study.prior or self._no_prior() for study in studies]
        rows, masks, states = (torch.stack(parts) for parts in zip(*priors, strict=True))
        return {"prior": rows, "prior_mask": masks, "prior_states": states}

    def _context_inputs(self, studies: Sequence[ReadStudy]) -> Example:
        """Return the embedded sections, stacked; nothing at all where no study has any."""
        if not any(text for study in studies for text in study.context):
            return {}
        texts = [study.context for study in studies]
        contexts = embed_contexts(self.retriever, texts, sections=len(self.takes_context))
        rows, masks = zip(*map(contexts.gather, range(len(studies))), strict=True)
        return {"context": torch.stack(rows), "context_mask": torch.stack(masks)}

    def _embed(self, studies: Sequence[ReadStudy]) -> np.ndarray:
        """Return the retriever's embeddings (B, E) float32 of the studies."""
        return embed_views(self.retriever, [study.query for study in studies]).numpy()

    def _inputs(self, studies: Sequence[ReadStudy], embedded: np.ndarray) -> tuple[StudyInputs, Neighbours]:
        """Return the network's inputs of a batch, studies embedded as (B, E), and the retrieved reports in it."""
        index = self.example_settings.index
        neighbours = index.search(embedded, self.settings.retriever.neighbours)
        features = [
            neighbour_features(index, neighbours, row, token_features=self.example_settings.token_features)
            for row in range(len(studies))
        ]
        inputs = StudyInputs(
            **padded_views([study.shown for study in studies], [study.kinds for study in studies]),
            retrieved=torch.stack([retrieved for retrieved, _ in features]),
            retrieved_mask=torch.stack([mask for _, mask in features]),
            **self._prior_inputs(studies),
            **self._context_inputs(studies),
        )
        return inputs, neighbours

    def _write(self, studies: Sequence[ReadStudy], options: GenerationOptions, *, first: int) -> GeneratedBatch:
        """Generate the reports of a batch whose first image is at position `first`."""
        inputs, neighbours = self._inputs(studies, self._embed(studies))
        evidence = [retrieved_reports(self.example_settings.index, neighbours, row) for row in range(len(studies))]
        return write_batch(
            *(self.model, inputs, self.example_settings.tokenizer, evidence, options),
            max_tokens=self.example_settings.max_tokens,
            labeler=self._labeler if (options.candidates or 1) > 1 else None,
            first=first,
            rater=self._rater,
        )


def _picture(image: Picture, resize: int | None) -> Image.Image:
    if isinstance(image, ResizedImages):
        return image.at(resize)
    return image if isinstance(image, Image.Image) else read_resized(Path(image), resize)

"""Reports for images that belong to no data set: retrieve, write, explain."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from diffrgen.errors import DataError
from diffrgen.evaluation.prior_study import PriorStudy
from diffrgen.evaluation.writer import WrittenBatch, WrittenReport, retrieved_reports, write_batch
from diffrgen.images import read_resized
from diffrgen.pipeline.dataset import Example, neighbour_features
from diffrgen.pipeline.options import GenerationOptions
from diffrgen.pipeline.run_folder import RunFolder
from diffrgen.retrieval.priors import embed_sentences, prior_sentences, stack_rows
from diffrgen.retrieval.retriever import EvaluationTransform

Picture = str | Path | Image.Image
"""An image file, or a grey image (mode "L")."""

Unreadable = Callable[[int, DataError], None]
"""Is told the position of an image that cannot be read, and why."""


class ReadStudy(NamedTuple):
    """An image and its prior as the networks take them: the retriever's and the model's pixel values (C, S, S), and the
    rows of the prior with their mask.
    """

    query: Tensor
    shown: Tensor
    prior: tuple[np.ndarray, np.ndarray] | None


class Reporter:
    """A run that is loaded once and writes reports for any images, on the GPU where there is one."""

    def __init__(self, run: str | Path, *, fused_kernels: bool = True) -> None:
        folder = RunFolder(Path(run))
        self.settings = folder.settings()
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model = folder.model(fused_kernels=fused_kernels).to(self.device)
        self.sources = folder.sources(self.model.config, self.settings)
        self.retriever = folder.retriever().to(self.device)

    def write(
        self,
        images: Sequence[Picture],
        options: GenerationOptions,
        priors: Sequence[PriorStudy | None] | None = None,
        *,
        unreadable: Unreadable | None = None,
    ) -> Iterator[WrittenReport]:
        """Yield the report of each image, in order.

        priors: the patient's earlier study for each image, None where there is none. unreadable: is called for each
        file that cannot be read, and the others go on.

        Raises DataError for a file that cannot be read, by its name, where `unreadable` is not given, and for a prior
        where the run takes none.
        """
        for _, batch in self.write_batches(images, options, priors, unreadable=unreadable):
            yield from batch.reports

    def write_batches(
        self,
        images: Sequence[Picture],
        options: GenerationOptions,
        priors: Sequence[PriorStudy | None] | None = None,
        *,
        unreadable: Unreadable | None = None,
    ) -> Iterator[tuple[list[int], WrittenBatch]]:
        """Yield batches of `options.batch_size` readable images with their positions; all else is as in `write`."""
        read: dict[int, ReadStudy] = {}
        for position, (image, prior) in enumerate(zip(images, self._checked(priors, len(images)), strict=True)):
            try:
                read[position] = self._read(image, prior)
            except DataError as error:
                if unreadable is None:
                    raise
                unreadable(position, error)
            if len(read) == options.batch_size or (read and position + 1 == len(images)):
                yield list(read), self._write(list(read.values()), options)
                read = {}

    @property
    def takes_priors(self) -> bool:
        """Whether the run's model was trained with earlier studies."""
        return self.model.config.prior

    def _checked(self, priors: Sequence[PriorStudy | None] | None, images: int) -> Sequence[PriorStudy | None]:
        """Return one prior or None an image."""
        if priors is None:
            return [None] * images
        if len(priors) != images:
            raise ValueError(f"expected one prior or None an image, got {len(priors)} for {images} images")
        if any(priors) and not self.takes_priors:
            raise DataError("this run's model was trained without earlier studies and takes no prior; leave it out")
        return priors

    @property
    def _transforms(self) -> tuple[EvaluationTransform, EvaluationTransform]:
        """What makes the retriever's pixel values and the network's."""
        return self.retriever.image_transform, self.sources.transform

    def _read(self, image: Picture, prior: PriorStudy | None) -> ReadStudy:
        """Read an image and its prior for both networks; a file is read once for one size."""
        query, shown = self._transforms
        pictures = {size: _picture(image, size) for size in {query.resize, shown.resize}}
        rows = None if prior is None else self._rows_of(prior)
        return ReadStudy(query(pictures[query.resize]), shown(pictures[shown.resize]), rows)

    def pixel_values(self, image: Picture) -> Tensor:
        """Return an image as the network sees it, (C, S, S); DataError names a file that cannot be read."""
        return self.sources.transform(_picture(image, self.sources.transform.resize))

    def _rows_of(self, prior: PriorStudy | None) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows (R, E) of the prior and which of them are real (R,); none is where there is no prior."""
        image, transform = None if prior is None else prior.image, self.retriever.image_transform
        if image is not None:
            pixels = transform(_picture(image, transform.resize))
            image = self.retriever.encode_images(pixels[None])[0].cpu().numpy()
        told = "" if prior is None or prior.report is None else prior.report
        sentences = prior_sentences(told, rules=self.settings.rules)
        return stack_rows(image, embed_sentences(self.retriever, sentences))

    def _prior_inputs(self, studies: Sequence[ReadStudy]) -> Example:
        """Return the prior (B, R, E) and its mask (B, R), nothing at all where no study has one."""
        if all(study.prior is None for study in studies):
            return {}
        rows = [self._rows_of(None) if study.prior is None else study.prior for study in studies]
        features, masks = (torch.stack([torch.from_numpy(row[part]) for row in rows]) for part in (0, 1))
        return {"prior": features, "prior_mask": masks}

    def _write(self, studies: Sequence[ReadStudy], options: GenerationOptions) -> WrittenBatch:
        """Write the reports of a batch."""
        index = self.sources.index
        embedded = self.retriever.encode_images(torch.stack([study.query for study in studies]))
        neighbours = index.search(embedded.cpu().numpy(), self.settings.retriever.neighbours)
        features = [
            neighbour_features(index, neighbours, row, token_features=self.sources.token_features)
            for row in range(len(studies))
        ]
        batch = {
            "pixel_values": torch.stack([study.shown for study in studies]),
            "retrieved": torch.stack([retrieved for retrieved, _ in features]),
            "retrieved_mask": torch.stack([mask for _, mask in features]),
            **self._prior_inputs(studies),
        }
        evidence = [retrieved_reports(index, neighbours, row) for row in range(len(studies))]
        return write_batch(
            self.model, batch, self.sources.tokenizer, evidence, options, max_tokens=self.sources.max_tokens
        )


def _picture(image: Picture, resize: int | None) -> Image.Image:
    return image if isinstance(image, Image.Image) else read_resized(Path(image), resize)

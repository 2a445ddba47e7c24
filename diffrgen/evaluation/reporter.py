"""Reports for images that belong to no data set: retrieve, write, explain."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from diffrgen.errors import DataError
from diffrgen.evaluation.prior_study import PriorStudy
from diffrgen.evaluation.writer import WrittenReport, retrieved_reports, write_batch
from diffrgen.images import read_resized
from diffrgen.pipeline.dataset import Example, neighbour_features
from diffrgen.pipeline.options import GenerationOptions
from diffrgen.pipeline.run_folder import RunFolder
from diffrgen.retrieval.priors import embed_sentences, prior_sentences, stack_rows
from diffrgen.retrieval.retriever import EvaluationTransform


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
        images: Sequence[str | Path],
        options: GenerationOptions,
        priors: Sequence[PriorStudy | None] | None = None,
    ) -> Iterator[WrittenReport]:
        """Yield the report of each image file, in order.

        priors: the patient's earlier study for each image, None where there is none.

        Raises DataError for a file that cannot be read, by its name, and for a prior where the run takes none.
        """
        priors = self._checked(priors, len(images))
        for start in range(0, len(images), options.batch_size):
            some = slice(start, start + options.batch_size)
            queries, shown = (
                torch.stack([transform(read_resized(Path(path), transform.resize)) for path in images[some]])
                for transform in self._transforms
            )
            yield from self._write(queries, shown, priors[some], options)

    def write_batch(
        self,
        images: Sequence[Image.Image],
        options: GenerationOptions,
        priors: Sequence[PriorStudy | None] | None = None,
    ) -> list[WrittenReport]:
        """Return the reports of grey images (mode "L") as one batch; priors and errors as in `write`."""
        priors = self._checked(priors, len(images))
        queries, shown = (torch.stack([transform(image) for image in images]) for transform in self._transforms)
        return self._write(queries, shown, priors, options)

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

    def _prior_rows(self, priors: Sequence[PriorStudy | None]) -> Example:
        """Return the prior (B, R, E) and its mask (B, R), nothing at all where no image has one."""
        if not any(priors):
            return {}
        rows = [self._rows_of(prior) for prior in priors]
        features, masks = (torch.stack([torch.from_numpy(row[part]) for row in rows]) for part in (0, 1))
        return {"prior": features, "prior_mask": masks}

    def _rows_of(self, prior: PriorStudy | None) -> tuple[np.ndarray, np.ndarray]:
        image, transform = None if prior is None else prior.image, self.retriever.image_transform
        if image is not None:
            pixels = image if isinstance(image, Image.Image) else read_resized(image, transform.resize)
            image = self.retriever.encode_images(transform(pixels)[None])[0].cpu().numpy()
        told = "" if prior is None or prior.report is None else prior.report
        sentences = prior_sentences(told, rules=self.settings.rules)
        return stack_rows(image, embed_sentences(self.retriever, sentences))

    def _write(
        self,
        queries: Tensor,
        shown: Tensor,
        priors: Sequence[PriorStudy | None],
        options: GenerationOptions,
    ) -> list[WrittenReport]:
        """Return the reports of images given as the retriever's (B, C, S, S) and the network's pixel values."""
        index = self.sources.index
        embedded = self.retriever.encode_images(queries)
        neighbours = index.search(embedded.cpu().numpy(), self.settings.retriever.neighbours)
        features = [
            neighbour_features(index, neighbours, row, token_features=self.sources.token_features)
            for row in range(len(shown))
        ]
        batch = {
            "pixel_values": shown,
            "retrieved": torch.stack([retrieved for retrieved, _ in features]),
            "retrieved_mask": torch.stack([mask for _, mask in features]),
            **self._prior_rows(priors),
        }
        evidence = [retrieved_reports(index, neighbours, row) for row in range(len(shown))]
        return write_batch(
            self.model, batch, self.sources.tokenizer, evidence, options, max_tokens=self.sources.max_tokens
        )

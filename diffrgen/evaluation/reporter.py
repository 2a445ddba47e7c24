"""Reports for images that belong to no data set: retrieve, write, explain."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from diffrgen.errors import DataError
from diffrgen.evaluation.prior_study import PriorStudy
from diffrgen.evaluation.writer import WrittenBatch, WrittenReport, retrieved_reports, write_batch
from diffrgen.images import read_resized
from diffrgen.pipeline.dataset import neighbour_features
from diffrgen.pipeline.options import GenerationOptions
from diffrgen.pipeline.run_folder import RunFolder
from diffrgen.retrieval.retriever import EvaluationTransform

Picture = str | Path | Image.Image
"""An image file, or a grey image (mode "L")."""

Unreadable = Callable[[int, DataError], None]
"""Is told the position of an image that cannot be read, and why."""


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
        self._check(priors, len(images))
        positions: list[int] = []
        pixels: list[tuple[Tensor, Tensor]] = []
        for position, image in enumerate(images):
            try:
                pixels.append(self._pixels(image))
                positions.append(position)
            except DataError as error:
                if unreadable is None:
                    raise
                unreadable(position, error)
            if len(pixels) == options.batch_size or (pixels and position + 1 == len(images)):
                yield positions, self._write(*map(torch.stack, zip(*pixels, strict=True)), options)
                positions, pixels = [], []

    def _check(self, priors: Sequence[PriorStudy | None] | None, images: int) -> None:
        if priors is None:
            return
        if len(priors) != images:
            raise ValueError(f"expected one prior or None an image, got {len(priors)} for {images} images")
        if any(prior is not None for prior in priors):
            raise DataError("this run's model was trained without prior studies; leave the prior out")

    @property
    def _transforms(self) -> tuple[EvaluationTransform, EvaluationTransform]:
        """What makes the retriever's pixel values and the network's."""
        return self.retriever.image_transform, self.sources.transform

    def _pixels(self, image: Picture) -> tuple[Tensor, Tensor]:
        """Return the retriever's (C, S, S) and the network's pixel values; a file is read once for one size."""
        if isinstance(image, Image.Image):
            query, shown = (transform(image) for transform in self._transforms)
        else:
            sizes = {transform.resize for transform in self._transforms}
            read = {resize: read_resized(Path(image), resize) for resize in sizes}
            query, shown = (transform(read[transform.resize]) for transform in self._transforms)
        return query, shown

    def _write(self, queries: Tensor, shown: Tensor, options: GenerationOptions) -> WrittenBatch:
        """Write the reports of images given as the retriever's (B, C, S, S) and the network's pixel values."""
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
        }
        evidence = [retrieved_reports(index, neighbours, row) for row in range(len(shown))]
        return write_batch(
            self.model, batch, self.sources.tokenizer, evidence, options, max_tokens=self.sources.max_tokens
        )

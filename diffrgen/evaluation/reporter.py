"""Reports for images that belong to no data set: retrieve, write, explain."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from diffrgen.evaluation.writer import WrittenReport, retrieved_reports, write_batch
from diffrgen.images import read_resized
from diffrgen.pipeline.dataset import neighbour_features
from diffrgen.pipeline.options import GenerationOptions
from diffrgen.pipeline.run_folder import RunFolder
from diffrgen.retrieval.retriever import EvaluationTransform


class Reporter:
    """A run that is loaded once and writes reports for any images, on the GPU where there is one.

    run: its folder, or the hub name owner/name[@revision] of a shared one.
    """

    def __init__(self, run: str | Path, *, fused_kernels: bool = True) -> None:
        folder = RunFolder.open(run)
        self.settings = folder.settings()
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model = folder.model(fused_kernels=fused_kernels).to(self.device)
        self.sources = folder.sources(self.model.config, self.settings)
        self.retriever = folder.retriever().to(self.device)

    def write(self, images: Sequence[str | Path], options: GenerationOptions) -> Iterator[WrittenReport]:
        """Yield the report of each image file, in order; DataError names a file that cannot be read."""
        for start in range(0, len(images), options.batch_size):
            some = [Path(image) for image in images[start : start + options.batch_size]]
            queries, shown = (
                torch.stack([transform(read_resized(path, transform.resize)) for path in some])
                for transform in self._transforms
            )
            yield from self._write(queries, shown, options)

    def write_batch(self, images: Sequence[Image.Image], options: GenerationOptions) -> list[WrittenReport]:
        """Return the reports of grey images (mode "L") as one batch."""
        queries, shown = (torch.stack([transform(image) for image in images]) for transform in self._transforms)
        return self._write(queries, shown, options)

    @property
    def _transforms(self) -> tuple[EvaluationTransform, EvaluationTransform]:
        """What makes the retriever's pixel values and the network's."""
        return self.retriever.image_transform, self.sources.transform

    def _write(self, queries: Tensor, shown: Tensor, options: GenerationOptions) -> list[WrittenReport]:
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
        }
        evidence = [retrieved_reports(index, neighbours, row) for row in range(len(shown))]
        return write_batch(
            self.model, batch, self.sources.tokenizer, evidence, options, max_tokens=self.sources.max_tokens
        )

"""Image-report pairs for fitting the retriever, and how a batch of them is padded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypedDict

import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerFast

from diffrgen.errors import DataError
from diffrgen.fitting.epoch import SharedEpoch
from diffrgen.images import ImageTransform, ReadImage, read_resized
from diffrgen.records import Study, main_view
from diffrgen.text import Rules, clean_report

# Separates the random draw of a study's view from those of its augmentation.
VIEW_DRAW = 1


class Pair(TypedDict):
    """One image with its report's tokens."""

    pixel_values: Tensor  # (C, S, S) float32
    input_ids: Tensor | list[int]  # (T,) without padding


class PairBatch(TypedDict):
    """Pairs padded to the longest report: what `DualEncoder.forward` takes."""

    pixel_values: Tensor  # (B, C, S, S)
    input_ids: Tensor  # (B, T) int64
    attention_mask: Tensor  # (B, T) int64


@dataclass(frozen=True)
class PairCollator:
    """Pads the reports of a batch with `pad_token_id`."""

    pad_token_id: int

    def __call__(self, pairs: Sequence[Pair]) -> PairBatch:
        """Return one batch of `pairs`."""
        ids = [torch.as_tensor(pair["input_ids"], dtype=torch.int64) for pair in pairs]
        lengths = torch.tensor([len(tokens) for tokens in ids])
        padded = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_value=self.pad_token_id)
        mask = (torch.arange(padded.shape[1]) < lengths[:, None]).long()  # (B, T)
        pixel_values = torch.stack([pair["pixel_values"] for pair in pairs])
        return PairBatch(pixel_values=pixel_values, input_ids=padded, attention_mask=mask)


class Pairs(Protocol):
    """A data set of pairs."""

    def __len__(self) -> int: ...

    def __getitem__(self, position: int, /) -> Pair:
        """Return a pair."""
        ...


class StudyPairs(Dataset[Pair]):
    """An image of each study with the tokens of its cleaned report: any view in training, else the main one.

    View and augmentation are drawn from (seed, epoch, study), so it does not depend on the number of workers; call `set_epoch`
    before each pass.
    """

    def __init__(
        self,
        studies: Sequence[Study],
        *,
        transform: ImageTransform,
        tokenizer: PreTrainedTokenizerFast,
        rules: Rules,
        max_tokens: int,
        seed: int = 0,
        read: ReadImage = read_resized,
    ) -> None:
        self.studies = studies
        self.transform = transform
        self.seed = seed
        self.read = read
        self._epoch = SharedEpoch()
        texts = [clean_report(study.report, rules=rules) for study in studies]
        self.input_ids: list[list[int]] = tokenizer(texts, truncation=True, max_length=max_tokens)["input_ids"]

    def __len__(self) -> int:
        return len(self.studies)

    def __getitem__(self, position: int) -> Pair:
        """Return the pair at `position`."""
        draw = (self.seed, self._epoch.number, position)
        generator = torch.Generator().manual_seed(hash(draw) & 0xFFFF_FFFF)
        images = query_images(self.studies[position])
        view = main_view(self.studies[position].views)
        if self.transform.train and len(images) > 1:
            view = hash((*draw, VIEW_DRAW)) % len(images)
        image = self.read(images[view], self.transform.resize)
        return Pair(pixel_values=self.transform(image, generator), input_ids=self.input_ids[position])

    def set_epoch(self, epoch: int) -> None:
        """Draw other augmentations in pass `epoch`."""
        self._epoch.number = epoch


def query_images(study: Study) -> tuple[Path, ...]:
    """Return the images that a study is seen and retrieved by, all of its views; DataError when it has none."""
    if not study.images:
        raise DataError(f"study {study.id!r}: needed an image, got none")
    return study.images

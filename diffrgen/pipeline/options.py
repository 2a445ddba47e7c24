"""What a run reads and writes: the data, the images, the text and the generation, one frozen dataclass each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from diffrgen.images import ImageTransform
from diffrgen.pipeline.generation import GenerationOptions
from diffrgen.records import ViewChoice
from diffrgen.text import Rules

__all__ = ["DataOptions", "GenerationOptions", "ImageOptions", "TextOptions"]


@dataclass(frozen=True)
class DataOptions:
    """Where the studies come from."""

    data: str = "phantom"
    """`phantom` (drawn on first use) or the path of an R2Gen-style annotation.json."""
    images: Path | None = None
    """Folder that the annotation's image paths are relative to; default: images/ beside the annotation."""
    skip_broken: bool = False
    """Leave out missing and unreadable images and records with no image left or an empty report, counted in a warning."""
    views: ViewChoice = "all"
    """Images of a study to use: all (4 at most), the first frontal one (else the first), or the first as listed."""
    view_index: Path | None = None
    """CSV with the view of each image (columns path; view, projection or ViewPosition) for an annotation without views;
    default: IMAGES_index.csv beside the images folder, where there is one."""


@dataclass(frozen=True)
class ImageOptions:
    """How an image becomes the encoder's input (PromptMRG: 256 -> crop 224, rotation 5 degrees)."""

    size: int = 224
    """Side of the crop in pixels."""
    resize: int = 256
    """Shorter side before the crop in pixels."""
    rotation: float = 5.0
    """Largest random rotation in training, degrees."""
    mean: float = 0.5
    """Grey level taken off, of [0, 1]."""
    std: float = 0.25
    """Grey level divided by."""

    def transform(self, channels: int, *, train: bool = False) -> ImageTransform:
        """Return the transform for an encoder of so many input channels; nothing is random unless `train`."""
        rotation = self.rotation if train else 0.0
        return ImageTransform(
            size=self.size,
            resize=self.resize,
            rotation=rotation,
            channels=channels,
            mean=self.mean,
            std=self.std,
            train=train,
        )


@dataclass(frozen=True)
class TextOptions:
    """How a report becomes tokens."""

    rules: Rules = "mimic"
    """Cleaning rules, R2Gen's by name."""
    max_tokens: int = 100
    """Tokens of a report, the end token included."""
    tokenizer: Path | None = None
    """Folder of a pretrained BERT tokenizer; default: the pretrained decoder's, else one trained on the reports."""
    vocab_size: int = 8000
    """Largest vocabulary of a tokenizer trained here."""
    min_frequency: int = 2
    """Occurrences that a word piece needs to enter the vocabulary."""

"""Options of the data, the images, the text and the generation, one frozen dataclass each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from annotated_types import Ge, Le

from diffrgen.errors import DataError
from diffrgen.pipeline.generation import GenerationOptions
from diffrgen.ranges import Count, Positive, Share, check_fields
from diffrgen.records import ViewChoice
from diffrgen.text.cleaning import Rules

if TYPE_CHECKING:
    from diffrgen.images import ImageTransform

PHANTOM = "phantom"
LabelerName = Literal["phantom", "rule", "chexbert"]
Side = Annotated[int, Ge(1), Le(8192)]
"""Pixels along a side of an image."""

__all__ = [
    "PHANTOM",
    "DataOptions",
    "GenerationOptions",
    "ImageCacheOptions",
    "ImageOptions",
    "LabelerName",
    "LabelerOptions",
    "TextOptions",
]


@dataclass(frozen=True)
class DataOptions:
    """Source of the studies."""

    data: str = "phantom"
    """`phantom` (generated on first use) or the path of an R2Gen-style annotation.json."""
    images: Path | None = None
    """Folder of the images, to which the annotation's image paths are relative; default: images/ next to the
    annotation."""
    skip_broken: bool = False
    """Exclude missing and unreadable images, and records with no image left or an empty report; a warning gives their
    number."""
    views: ViewChoice = "all"
    """Images of a study to use: all (at most 4), the first frontal image (else the first), or the first image
    listed."""
    view_index: Path | None = None
    """CSV with the view of each image (columns path; view, projection or ViewPosition) for an annotation without views;
    default: IMAGES_index.csv next to the images folder, if it exists."""

    def __post_init__(self) -> None:
        check_fields(self, "--")


@dataclass(frozen=True)
class ImageCacheOptions:
    """Cache of the decoded and resized images, used in every epoch and by later commands."""

    image_cache: bool = True
    """Decode every image once and cache it; --no-image-cache decodes the files in every epoch."""
    image_cache_folder: Path | None = None
    """Folder for the decoded images; default: DIFFRGEN_CACHE, else ~/.cache/diffrgen."""

    def __post_init__(self) -> None:
        check_fields(self, "--")


@dataclass(frozen=True)
class LabelerOptions:
    """Labeler of generated reports, and of data without labels."""

    labeler: LabelerName | None = None
    """`phantom`: the phantom grammar's exact parser; `rule`: the rule-based labeler; `chexbert`: the published network.
    Default: the labeler of the training, else phantom for the phantom and rule for all other data."""
    chexbert: Path | None = None
    """CheXbert's published checkpoint, chexbert.pth; `hub` downloads it from StanfordAIMI/RRG_scorers on the Hugging
    Face hub. Without `hub` nothing is downloaded."""
    chexbert_vocabulary: Path | None = None
    """BERT-base-uncased's vocab.txt, or its folder; not required with --chexbert hub, which also downloads it."""

    def __post_init__(self) -> None:
        check_fields(self, "--")


@dataclass(frozen=True)
class ImageOptions:
    """Conversion of an image to the encoder's input (PromptMRG: 256 -> crop 224, rotation 5 degrees)."""

    size: Side = 224
    """Side of the crop in pixels."""
    resize: Side = 256
    """Shorter side before the crop in pixels."""
    rotation: Annotated[float, Ge(0), Le(180)] = 5.0
    """Maximum random rotation in training, in degrees."""
    mean: Share = 0.5
    """Mean subtracted from grey levels in [0, 1]."""
    std: Positive = 0.25
    """Standard deviation by which grey levels are divided."""
    single_view: Share = 0.0
    """Probability that a training study of several views shows only one of them, drawn again each epoch, so that the
    network also learns to report a single image."""

    def __post_init__(self) -> None:
        check_fields(self, "--image.")
        if self.size > self.resize:
            raise DataError(f"--image.size: expected at most the {self.resize} pixels of --image.resize, got {self.size}")

    def transform(self, channels: int, *, train: bool = False) -> ImageTransform:
        """Return the transform for an encoder with `channels` input channels; random only with `train`."""
        from diffrgen.images import ImageTransform  # which needs torch

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
    """Conversion of a report to tokens."""

    rules: Rules = "mimic"
    """Cleaning rules, by the names of R2Gen."""
    max_tokens: Annotated[int, Ge(2)] = 100
    """Maximum number of tokens of a report, including the end token."""
    sections: tuple[Literal["findings", "impression"], ...] = ()
    """`findings impression`: generate both sections, each from the record's field of that name, the impression after
    the findings. Default: one text, the field `report`."""
    tokenizer: Path | None = None
    """Folder of a pretrained BERT tokenizer; default: the pretrained decoder's, else one trained on the reports."""
    vocab_size: Annotated[int, Ge(128)] = 8000
    """Maximum vocabulary size of a tokenizer trained on the reports."""
    min_frequency: Count = 2
    """Minimum number of occurrences of a word piece in the vocabulary."""

    def __post_init__(self) -> None:
        check_fields(self, "--text.")
        if self.sections not in ((), ("findings", "impression")):
            raise DataError(f"--text.sections: expected `findings impression` or nothing, got {' '.join(self.sections)}")

"""What a run reads and writes: the data, the images, the text and the generation, one frozen dataclass each."""

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

    def __post_init__(self) -> None:
        check_fields(self, "--")


@dataclass(frozen=True)
class ImageCacheOptions:
    """Keeping the decoded and resized images, so that every epoch and every later command finds them decoded."""

    image_cache: bool = True
    """Decode every image once and keep it; --no-image-cache decodes the files in every epoch."""
    image_cache_folder: Path | None = None
    """Folder for the decoded images; default: DIFFRGEN_CACHE, else ~/.cache/diffrgen."""

    def __post_init__(self) -> None:
        check_fields(self, "--")


@dataclass(frozen=True)
class LabelerOptions:
    """Who reads the states of the findings: in written reports, and in the reports of data that bring no labels."""

    labeler: LabelerName | None = None
    """`phantom`: the phantom grammar's exact parser; `rule`: phrase tables; `chexbert`: the published network. Default:
    what the run was trained with, else phantom for the phantom and rule for all other data."""
    chexbert: Path | None = None
    """CheXbert's published checkpoint, chexbert.pth; `hub` downloads it from StanfordAIMI/RRG_scorers on the Hugging Face
    hub, and is the only way in which it is downloaded."""
    chexbert_vocabulary: Path | None = None
    """BERT-base-uncased's vocab.txt, or the folder that holds it; not needed with --chexbert hub, which downloads it too."""

    def __post_init__(self) -> None:
        check_fields(self, "--")


@dataclass(frozen=True)
class ImageOptions:
    """How an image becomes the encoder's input (PromptMRG: 256 -> crop 224, rotation 5 degrees)."""

    size: Side = 224
    """Side of the crop in pixels."""
    resize: Side = 256
    """Shorter side before the crop in pixels."""
    rotation: Annotated[float, Ge(0), Le(180)] = 5.0
    """Largest random rotation in training, degrees."""
    mean: Share = 0.5
    """Grey level taken off, of [0, 1]."""
    std: Positive = 0.25
    """Grey level divided by."""

    def __post_init__(self) -> None:
        check_fields(self, "--image.")
        if self.size > self.resize:
            raise DataError(f"--image.size: expected at most the {self.resize} pixels of --image.resize, got {self.size}")

    def transform(self, channels: int, *, train: bool = False) -> ImageTransform:
        """Return the transform for an encoder of so many input channels; nothing is random unless `train`."""
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
    """How a report becomes tokens."""

    rules: Rules = "mimic"
    """Cleaning rules, R2Gen's by name."""
    max_tokens: Annotated[int, Ge(2)] = 100
    """Tokens of a report, the end token included."""
    sections: tuple[Literal["findings", "impression"], ...] = ()
    """`findings impression`: write both, each from the record's field of that name, the impression after the findings.
    Default: one text, the field `report`."""
    tokenizer: Path | None = None
    """Folder of a pretrained BERT tokenizer; default: the pretrained decoder's, else one trained on the reports."""
    vocab_size: Annotated[int, Ge(128)] = 8000
    """Largest vocabulary of a tokenizer trained here."""
    min_frequency: Count = 2
    """Occurrences that a word piece needs to enter the vocabulary."""

    def __post_init__(self) -> None:
        check_fields(self, "--text.")
        if self.sections not in ((), ("findings", "impression")):
            raise DataError(f"--text.sections: expected `findings impression` or nothing, got {' '.join(self.sections)}")

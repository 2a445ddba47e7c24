"""The interface of a retriever: embeds images and reports in one space; saved in one folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import torch
from PIL import Image
from torch import Tensor


class TokenFeatures(NamedTuple):
    """Features of the tokens of some reports; `mask` is false on padding."""

    features: Tensor  # (n, T, E_token)
    mask: Tensor  # (n, T) bool


class EvaluationTransform(Protocol):
    """Turns a grey image into the pixel values that an image tower was fitted on."""

    @property
    def resize(self) -> int | None:
        """Pixels of an image's shorter side after the first resize; None if the transform uses the complete image."""
        ...

    def __call__(self, image: Image.Image) -> Tensor:
        """Return (channels, S, S) float32."""
        ...


class Retriever(Protocol):
    """Embeds images and reports; the rows of every embedding are unit-length float32, on the retriever's device.

    The methods run without gradients and in evaluation mode. Texts are cleaned reports: the retriever tokenises and
    truncates them itself.
    """

    @property
    def embedding_width(self) -> int:
        """Width E of an embedding."""
        ...

    @property
    def token_width(self) -> int:
        """Width E_token of a token feature."""
        ...

    @property
    def image_transform(self) -> EvaluationTransform:
        """The transform that makes the pixel values `encode_images` wants."""
        ...

    @property
    def fingerprint(self) -> str:
        """A hash of the weights: what was computed by another retriever is recognised by it."""
        ...

    def to(self, device: torch.device | str) -> Retriever:
        """Move the towers to `device` and return the retriever."""
        ...

    def encode_images(self, pixel_values: Tensor) -> Tensor:
        """Embed images, (B, C, S, S) -> (B, E)."""
        ...

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """Embed reports, n texts -> (n, E)."""
        ...

    def encode_text_tokens(self, texts: Sequence[str]) -> TokenFeatures:
        """Return the token features of n reports."""
        ...

    def save(self, folder: Path) -> None:
        """Write towers (safetensors), tokenizer and image transform to `folder`, for `load_retriever`."""
        ...

"""The image encoder: a transformers ResNet whose last feature map is the patches F (section 3 of the paper)."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from transformers import AutoConfig, ResNetConfig, ResNetModel

from diffrgen.errors import DataError


class PatchFeatures(NamedTuple):
    """The features of a batch of images: one row a patch, row by row of the grid, and their mean."""

    patches: Tensor  # (B, m, width)
    pooled: Tensor  # (B, width)
    grid: tuple[int, int]  # (gh, gw), m = gh * gw


def encoder_config(preset: Literal["tiny", "paper"], *, channels: int | None = None) -> ResNetConfig:
    """Return the ResNet layout of a preset.

    `paper` is ResNet-101 on 3 channels (stride 32, width 2048). `tiny` has three basic stages on 1 channel
    (stride 16, width 128): 112 px give 7 x 7 patches. `channels` overrides the number of input channels.
    """
    if preset == "paper":
        return ResNetConfig(num_channels=channels or 3, depths=[3, 4, 23, 3])
    if preset == "tiny":
        return ResNetConfig(
            num_channels=channels or 1,
            embedding_size=16,
            hidden_sizes=[32, 64, 128],
            depths=[2, 2, 2],
            layer_type="basic",
        )
    raise ValueError(f"expected preset 'tiny' or 'paper', got {preset!r}")


class PatchEncoder(nn.Module):
    """F = ResNet(image): the last feature map as m = gh * gw patches, and pooled = mean over the patches.

    `model` is a transformers `ResNetModel`, so its weights are interchangeable with any ResNet checkpoint of that
    class.
    """

    def __init__(self, config: ResNetConfig) -> None:
        super().__init__()
        self.config = config
        self.model = ResNetModel(config)

    @classmethod
    def from_pretrained(cls, path: str | Path) -> PatchEncoder:
        """Load a transformers ResNet from a local folder or a hub name; safetensors weights only.

        Raises DataError when the checkpoint is not a ResNet or brings no model.safetensors.
        """
        try:
            config = AutoConfig.from_pretrained(path)
            if not isinstance(config, ResNetConfig):
                raise DataError(
                    f"{path}: needed a transformers ResNet checkpoint (model_type 'resnet'), got model_type "
                    f"{config.model_type!r}; give the path of a ResNet"
                )
            encoder = cls(config)
            encoder.model = ResNetModel.from_pretrained(path, use_safetensors=True)
        except OSError as error:
            raise DataError(
                f"{path}: needed a folder or hub name with config.json and model.safetensors of a transformers "
                f"ResNet, got: {error}"
            ) from error
        return encoder

    @property
    def width(self) -> int:
        """Width of a patch feature."""
        return self.config.hidden_sizes[-1]

    @property
    def channels(self) -> int:
        """Number of channels that an image must have."""
        return self.config.num_channels

    @property
    def stride(self) -> int:
        """Pixels a side that one patch stands for: 4 in the stem, then 2 for each stage that downsamples."""
        halvings = len(self.config.hidden_sizes) - 1 + int(self.config.downsample_in_first_stage)
        return 4 * 2**halvings

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Return (gh, gw) of an image of `height` x `width` pixels."""
        return -(-height // self.stride), -(-width // self.stride)

    def forward(self, pixel_values: Tensor) -> PatchFeatures:
        """Encode images, (B, channels, S, S) floating -> `PatchFeatures`.

        Raises ValueError for a wrong rank or channel count and for images smaller than one patch.
        """
        self._check(pixel_values)
        stem = self.model.embedder(pixel_values)
        # channels_last after the stem: forward + backward 1.5x faster (tiny, 32 x 112 px, one AVX-512 thread).
        stem = stem.contiguous(memory_format=torch.channels_last)
        feature_map = self.model.encoder(stem, return_dict=True).last_hidden_state  # (B, width, gh, gw)
        patches = feature_map.flatten(2).transpose(1, 2)  # (B, m, width)
        return PatchFeatures(patches, patches.mean(1), (feature_map.shape[2], feature_map.shape[3]))

    def _check(self, pixel_values: Tensor) -> None:
        shape = tuple(pixel_values.shape)
        if pixel_values.dim() != 4 or shape[1] != self.channels:
            raise ValueError(
                f"expected images of shape (B, {self.channels}, S, S), got {shape}; set the channels of "
                "ImageTransform to what the encoder's config calls num_channels"
            )
        if min(shape[2:]) < self.stride:
            raise ValueError(
                f"expected images of at least {self.stride} x {self.stride} px (one patch), got {shape[2]} x {shape[3]}"
            )

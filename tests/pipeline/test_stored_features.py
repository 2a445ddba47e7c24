"""A frozen encoder's features: what is stored, when it is made anew, and how a training draws among the crops."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from diffrgen.errors import DataError
from diffrgen.images import ImageTransform, read_resized
from diffrgen.images.encoder import PatchEncoder, encoder_config
from diffrgen.pipeline import stored_features as module
from diffrgen.pipeline.stored_features import CropChoice, FeatureReader, stored_features

TRANSFORM = ImageTransform(size=32, resize=40, rotation=10.0, train=True)


@pytest.fixture
def images(tmp_path):
    draw = np.random.default_rng(0)
    paths = tuple(tmp_path / f"{number}.png" for number in range(5))
    for path in paths:
        Image.fromarray(draw.integers(0, 256, (40, 44), dtype=np.uint8)).save(path)
    return paths


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    return PatchEncoder(encoder_config("tiny")).freeze()


def store(root, encoder, images, **changes):
    options = {"read": read_resized, "transform": TRANSFORM, "crops": 2, "batch_size": 2, "progress": False, **changes}
    return stored_features(root, encoder, images, **options)


def test_map_0_is_the_central_crop_and_the_others_are_different_ones(tmp_path, encoder, images):
    features = store(tmp_path / "cache", encoder, images)
    assert features.maps.shape == (5, 3, 128, 2, 2)
    for path in images:
        central = replace(TRANSFORM, train=False)(read_resized(path, 40))
        expected = encoder(central[None]).patches[0].mT.unflatten(-1, (2, 2))
        # rounded to half precision
        torch.testing.assert_close(torch.from_numpy(features.read(path)[0]).float(), expected, rtol=1e-3, atol=1e-3)
        assert len(np.unique(features.read(path), axis=0)) == 3


def test_features_are_made_once_and_anew_for_another_encoder_file_or_transform(tmp_path, encoder, images, monkeypatch):
    made = []
    monkeypatch.setattr(module, "_compute", lambda *given, real=module._compute: made.append(1) or real(*given))
    root = tmp_path / "cache"
    first = store(root, encoder, images)
    again = store(root, encoder, images)
    assert np.array_equal(first.maps, again.maps)
    assert len(made) == 1
    store(root, encoder, images, transform=replace(TRANSFORM, rotation=5.0))
    torch.manual_seed(1)
    store(root, PatchEncoder(encoder_config("tiny")).freeze(), images)
    Image.new("L", (50, 50)).save(images[2])
    assert not np.array_equal(store(root, encoder, images).read(images[2]), first.read(images[2]))
    assert len(made) == 4


def test_a_training_draws_among_the_random_crops_and_an_evaluation_takes_the_central_one(tmp_path, encoder, images):
    maps = store(tmp_path / "cache", encoder, images, crops=3).read(images[0])
    assert torch.equal(CropChoice()(maps), torch.from_numpy(maps[0]).float())
    generator = torch.Generator().manual_seed(0)
    drawn = [CropChoice(train=True)(maps, generator) for _ in range(60)]
    counts = [sum(torch.equal(one, torch.from_numpy(crop).float()) for one in drawn) for crop in maps]
    assert counts[0] == 0
    assert sum(counts) == 60
    assert min(counts[1:]) > 8
    assert torch.equal(CropChoice(train=True)(maps[:1]), torch.from_numpy(maps[0]).float())


def test_a_reader_finds_each_image_in_its_store(tmp_path, encoder, images):
    parts = (store(tmp_path / "cache", encoder, images[:2]), store(tmp_path / "cache", encoder, images[2:], crops=0))
    reader = FeatureReader(parts)
    assert reader.read(images[1]).shape == (3, 128, 2, 2)
    assert np.array_equal(reader.read(images[3])[0], parts[1].maps[1, 0])


def test_a_damaged_store_is_named_with_what_to_do(tmp_path, encoder, images):
    store(tmp_path / "cache", encoder, images)
    (folder,) = (tmp_path / "cache").glob("features-*")
    (folder / "maps.npy").write_bytes(b"no array")
    with pytest.raises(DataError, match=r"features-.*: needed room .* delete this folder"):
        store(tmp_path / "cache", encoder, images)

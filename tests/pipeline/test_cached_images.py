"""Keeping decoded images is an option: where they go, what happens where they cannot, and that damage is told alike."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffrgen.errors import DataError
from diffrgen.images import read_resized
from diffrgen.labels import FINDINGS
from diffrgen.phantom import PhantomOptions
from diffrgen.pipeline.cached_images import ImageCacheOptions, cached_images
from diffrgen.pipeline.options import DataOptions
from diffrgen.pipeline.source import StudySource, load_source
from diffrgen.train import parse_options


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where decoded images go by default."""
    monkeypatch.setenv("DIFFRGEN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def annotation(tmp_path: Path) -> Path:
    """Five training studies of 40 x 40 pixels, the third and the fourth damaged."""
    folder = tmp_path / "images"
    folder.mkdir()
    draw, studies = np.random.default_rng(0), []
    for number in range(5):
        path = folder / f"{number}.jpg"
        Image.fromarray(draw.integers(0, 256, (40, 40), dtype=np.uint8)).save(path)
        study = {"id": str(number), "report": "clear .", "image_path": [path.name], "labels": [0] * len(FINDINGS)}
        studies.append(study)
    for number in (2, 3):
        path = folder / f"{number}.jpg"
        path.write_bytes(path.read_bytes()[:-200])
    path = tmp_path / "annotation.json"
    path.write_text(json.dumps({"train": studies}))
    return path


def load(annotation: Path, cache: ImageCacheOptions | None, *, skip_broken: bool = False) -> StudySource:
    data = DataOptions(str(annotation), annotation.parent / "images", skip_broken)
    return load_source(data, PhantomOptions(), cache=cache, resize=20)


def test_damage_is_told_as_without_kept_images(annotation, root):
    messages = []
    for cache in (None, ImageCacheOptions(image_cache=False), ImageCacheOptions(), ImageCacheOptions()):
        with pytest.raises(DataError) as caught:
            load(annotation, cache)
        messages.append(str(caught.value))
    assert "2 image(s) cannot be read; correct them or leave their records out with --skip-broken" in messages[0]
    assert "2.jpg: the image is damaged or cut off" in messages[0]
    assert set(messages) == {messages[0]}
    assert len([path for path in root.iterdir() if path.is_dir()]) == 1


def test_broken_records_are_left_out_and_the_others_read_from_the_cache(annotation):
    told, sources = [], []
    for cache in (None, ImageCacheOptions()):
        with pytest.warns(UserWarning, match=r"skipped 2 broken record\(s\)") as said:
            sources.append(load(annotation, cache, skip_broken=True))
        told.append([str(one.message) for one in said])
    assert told[0] == told[1]
    plain, kept = sources
    assert plain.splits == kept.splits
    assert [study.id for study in kept.splits.train] == ["0", "1", "4"]
    for study in kept.splits.train:
        decoded = np.asarray(read_resized(study.images[0], 20))
        np.testing.assert_array_equal(plain.read_image(study.images[0], 20), decoded)
        study.images[0].unlink()
        np.testing.assert_array_equal(kept.read_image(study.images[0], 20), decoded)


def test_the_folder_is_chosen_or_that_of_the_environment(annotation, root, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    with pytest.raises(DataError, match="cannot be read"):
        load(annotation, ImageCacheOptions(image_cache_folder=elsewhere))
    assert [path for path in elsewhere.iterdir() if path.name.startswith("images-20-")]
    assert not root.exists()


def test_a_folder_that_cannot_be_written_is_a_warning_by_default_and_an_error_where_asked_for(root, tmp_path):
    root.write_text("a file")
    with pytest.warns(UserWarning, match=r"cannot be kept here: .*; they are decoded in every epoch"):
        assert cached_images([], ImageCacheOptions(), resize=20) is None
    with pytest.raises(DataError, match=r"cannot be kept here: .* choose another --image-cache-folder"):
        cached_images([], ImageCacheOptions(image_cache_folder=root / "below"), resize=20)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert cached_images([], ImageCacheOptions(image_cache=False), resize=20) is None


def test_the_images_that_were_not_kept_are_still_checked(annotation, root):
    root.write_text("a file")
    with pytest.warns(UserWarning, match="decoded in every epoch"), pytest.raises(DataError, match=r"2 image\(s\)"):
        load(annotation, ImageCacheOptions())


def test_options_of_the_command():
    assert parse_options([]).decoded == ImageCacheOptions()
    asked = parse_options(["--no-image-cache", "--image-cache-folder", "big"]).decoded
    assert asked == ImageCacheOptions(False, Path("big"))

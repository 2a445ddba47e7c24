"""Damaged images are found before training, once each, with the record that holds them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffrgen.errors import DataError
from diffrgen.images import check_images, raise_broken
from diffrgen.records import Study, StudySplits, without_images


@pytest.fixture
def splits(tmp_path: Path) -> StudySplits:
    """Four training studies: a sound PNG and JPEG, a JPEG cut off, a PNG that is text."""
    noise = np.random.default_rng(0).integers(0, 256, (40, 40), dtype=np.uint8)
    for name in ("sound.png", "sound.jpg", "cut.jpg"):
        Image.fromarray(noise).save(tmp_path / name)
    cut = tmp_path / "cut.jpg"
    cut.write_bytes(cut.read_bytes()[:-200])
    (tmp_path / "text.png").write_text("no image")
    names = (("sound.png", "sound.jpg"), ("cut.jpg",), ("text.png",), ("sound.png",))
    studies = tuple(
        Study(str(number), "Clear.", tuple(tmp_path / name for name in images), "train")
        for number, images in enumerate(names)
    )
    return StudySplits(tmp_path / "annotation.json", studies, (), ())


@pytest.mark.parametrize("workers", [None, 1, 3])
def test_broken_images_are_found_with_the_reason(splits: StudySplits, workers: int | None) -> None:
    broken = check_images(splits, workers=workers)
    assert {path.name for path in broken} == {"cut.jpg", "text.png"}
    folder = splits.source.parent
    assert "cut off" in broken[folder / "cut.jpg"]
    assert "begins with b'no i'" in broken[folder / "text.png"]


def test_they_are_an_error_that_names_file_and_record_or_left_out(splits: StudySplits) -> None:
    broken = check_images(splits)
    with pytest.raises(DataError) as caught:
        raise_broken(splits, broken, source=splits.source)
    message = str(caught.value)
    assert f"{splits.source}: 2 image(s) cannot be read" in message
    assert "train (id '1'): " in message
    assert "text.png" in message
    kept = without_images(splits, broken)
    assert [study.id for study in kept] == ["0", "3"]
    assert len(kept.skipped) == 2
    raise_broken(kept, check_images(kept), source=splits.source)


def test_real_radiographs_are_sound(shared: Path) -> None:
    images = sorted((shared / "covid_cxr" / "images").iterdir())
    assert check_images([Study("all", "", tuple(images), "test")]) == {}

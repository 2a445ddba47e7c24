"""Decoded images are kept: equal to a direct decode, made once by however many ask, made anew where a file is new."""

from __future__ import annotations

import errno
import io
import json
import os
import pickle
import shutil
import subprocess
import sys
import zlib
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from diffrgen.errors import DataError
from diffrgen.images import ImageTransform, cache_writer, check_images, resized
from diffrgen.images.cache import MANIFEST, PIXELS, PLACES, CachePlan, ImageCache
from diffrgen.images.cache_writer import open_image_cache
from diffrgen.images.resized import read_resized
from diffrgen.records import Study

RESIZE = 32
Usage = namedtuple("Usage", "total used free")


def save(path: Path, *, width: int = 70, height: int = 50, wide: bool = False, seed: int = 0, **options) -> Path:
    """Write noise as the image `path`, 16-bit grey where `wide`."""
    top, dtype = (4096, np.uint16) if wide else (256, np.uint8)
    values = np.random.default_rng(seed).integers(0, top, (height, width)).astype(dtype)
    Image.fromarray(values).save(path, **options)
    return path


def save_dicom(path: Path) -> Path:
    """Write noise as a DICOM file of 12 bits."""
    pydicom = pytest.importorskip("pydicom")
    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = 40, 60, 1
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.SOPClassUID, dataset.SOPInstanceUID = "1.2", "1.3"
    dataset.PixelData = np.random.default_rng(1).integers(0, 4096, (40, 60)).astype("<u2").tobytes()
    dataset.save_as(path, enforce_file_format=True)
    return path


def plan_of(*paths: Path, resize: int = RESIZE) -> CachePlan:
    return CachePlan.of([Study(str(n), "", (path,), "train") for n, path in enumerate(paths)], resize=resize)


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    """A PNG and a JPEG."""
    (tmp_path / "images").mkdir()
    return [save(tmp_path / "images" / "a.png"), save(tmp_path / "images" / "b.jpg", seed=1)]


def partial_folders(root: Path) -> list[Path]:
    return list(root.glob(".*.partial"))


def test_kept_pixels_are_those_of_the_file_decoded_and_resized_by_pillow(tmp_path):
    grey, deep = save(tmp_path / "grey.png", width=64, height=32), save(tmp_path / "deep.png", wide=True)
    large, lossy = save(tmp_path / "large.jpg", width=300, height=280), save(tmp_path / "small.jpg")
    dicom = save_dicom(tmp_path / "one.dcm")
    cache = open_image_cache(tmp_path / "cache", plan_of(grey, deep, large, lossy, dicom))
    shutil.move(tmp_path / "grey.png", tmp_path / "moved.png")

    def by_pillow(image: Image.Image, size: tuple[int, int]) -> np.ndarray:
        return np.asarray(image.resize(size, Image.Resampling.BILINEAR))

    np.testing.assert_array_equal(cache.read(grey, RESIZE), np.asarray(Image.open(tmp_path / "moved.png")))
    levels = np.round(np.asarray(Image.open(deep)) * (255 / 4095)).astype(np.uint8)
    np.testing.assert_array_equal(cache.read(deep, RESIZE), by_pillow(Image.fromarray(levels), (44, 32)))
    np.testing.assert_array_equal(cache.read(lossy, RESIZE), by_pillow(Image.open(lossy), (44, 32)))
    eighth = Image.open(large)
    eighth.draft("L", (RESIZE, RESIZE))
    assert eighth.size == (38, 35)
    np.testing.assert_array_equal(cache.read(large, RESIZE), by_pillow(eighth, (34, 32)))
    np.testing.assert_array_equal(cache.read(dicom, RESIZE), read_resized(dicom, RESIZE))
    assert np.asarray(cache.read(dicom, RESIZE)).std() > 20


def test_the_transform_gives_what_it_gives_for_the_whole_image(images):
    """Every draw of crop and angle, and the central crop; for PNG, the tensor of the file opened by Pillow alone."""
    cache = open_image_cache(images[0].parents[1] / "cache", plan_of(*images))
    transform = ImageTransform(size=24, resize=RESIZE, rotation=5.0, channels=3, train=True)
    for seed in range(10):
        whole = transform(Image.open(images[0]), torch.Generator().manual_seed(seed))
        assert torch.equal(transform(cache.read(images[0], RESIZE), torch.Generator().manual_seed(seed)), whole)
    plain = replace(transform, train=False)
    for path in images:
        assert torch.equal(plain(cache.read(path, RESIZE)), plain(read_resized(path, RESIZE)))


def test_other_sizes_and_unknown_images_are_decoded(images, tmp_path):
    cache = open_image_cache(tmp_path / "cache", plan_of(images[0]))
    np.testing.assert_array_equal(cache.read(images[0]), np.asarray(Image.open(images[0])))
    assert cache.read(images[0], 40).size == (56, 40)
    assert cache.read(images[1], RESIZE).size == (44, 32)


def test_a_strip_is_not_blown_up_but_decoded_each_time(tmp_path):
    strip, sound = save(tmp_path / "strip.png", width=1300, height=2), save(tmp_path / "sound.png")
    cache = open_image_cache(tmp_path / "cache", plan_of(strip, sound))
    assert (cache.folder / PIXELS).stat().st_size == 32 * 44
    assert cache.read(strip, RESIZE).size == (1300, 2)
    np.testing.assert_array_equal(cache.read(sound, RESIZE), read_resized(sound, RESIZE))


def test_it_is_made_once_and_anew_when_a_file_has_changed(images, tmp_path, monkeypatch):
    root, plan = tmp_path / "cache", plan_of(*images)
    first = open_image_cache(root, plan)
    before = np.array(first.read(images[0], RESIZE))
    with monkeypatch.context() as patch:
        patch.setattr(cache_writer, "_write", None)
        assert open_image_cache(root, plan_of(*images)).folder == first.folder
    save(images[0], seed=7)
    second = open_image_cache(root, plan_of(*images))
    assert second.folder == first.folder
    assert not np.array_equal(second.read(images[0], RESIZE), before)
    np.testing.assert_array_equal(second.read(images[0], RESIZE), read_resized(images[0], RESIZE))
    np.testing.assert_array_equal(first.read(images[0], RESIZE), before)


def test_other_images_or_another_size_have_a_cache_of_their_own(images, tmp_path):
    root = tmp_path / "cache"
    plans = [plan_of(*images), plan_of(images[0]), plan_of(*images, resize=40), plan_of(*reversed(images))]
    assert len({open_image_cache(root, plan).folder for plan in plans}) == 4
    assert open_image_cache(root, plans[2]).read(images[0], 40).size == (56, 40)


def test_a_relative_path_names_the_same_cache(images, tmp_path, monkeypatch):
    bad = tmp_path / "images" / "bad.png"
    bad.write_bytes(b"none")
    folder = open_image_cache(tmp_path / "cache", plan_of(*images, bad)).folder
    monkeypatch.chdir(tmp_path)
    there = [Path("images") / path.name for path in (*images, bad)]
    again = open_image_cache(tmp_path / "cache", plan_of(*there))
    assert (again.folder, list(again.faults)) == (folder, [there[2]])


@pytest.mark.parametrize("damage", ["pixels", "places", "manifest", "schema", "decoder", "beyond"])
def test_a_damaged_or_older_cache_is_made_anew(images, tmp_path, damage):
    folder = open_image_cache(tmp_path / "cache", plan_of(*images)).folder
    if damage == "pixels":
        os.truncate(folder / PIXELS, 100)
    elif damage == "places":
        (folder / PLACES).write_bytes(b"none")
    elif damage == "beyond":
        np.save(folder / PLACES, np.load(folder / PLACES) + 1)
    elif damage == "manifest":
        (folder / MANIFEST).write_text("{")
    else:
        content = json.loads((folder / MANIFEST).read_text())
        (folder / MANIFEST).write_text(json.dumps({**content, damage: 0}))
    assert ImageCache.load(folder, plan_of(*images)) is None
    again = open_image_cache(tmp_path / "cache", plan_of(*images))
    np.testing.assert_array_equal(again.read(images[1], RESIZE), read_resized(images[1], RESIZE))


def test_pixels_of_another_recipe_are_made_anew(images, tmp_path, monkeypatch):
    folder = open_image_cache(tmp_path / "cache", plan_of(*images)).folder
    monkeypatch.setattr(resized, "RECIPE", 0)
    assert ImageCache.load(folder, plan_of(*images)) is None


def test_an_interrupted_making_leaves_nothing_and_the_next_one_is_whole(images, tmp_path, monkeypatch):
    root, done = tmp_path / "cache", []

    def stopped(path: Path, resize: int) -> Image.Image:
        if path == images[1]:
            raise KeyboardInterrupt
        done.append(path)
        return read_resized(path, resize)

    with monkeypatch.context() as patch:
        patch.setattr(cache_writer, "read_checked", stopped)
        with pytest.raises(KeyboardInterrupt):
            open_image_cache(root, plan_of(*images), threads=1)
    assert done == images[:1]
    assert [path.suffix for path in root.iterdir()] == [".lock"]
    (root / f".{plan_of(*images).name}.partial").mkdir()
    (root / f".{plan_of(*images).name}.partial" / PIXELS).write_bytes(b"left by a killed process")
    cache = open_image_cache(root, plan_of(*images))
    assert not partial_folders(root)
    np.testing.assert_array_equal(cache.read(images[1], RESIZE), read_resized(images[1], RESIZE))


RACER = """
import sys, time, warnings
from pathlib import Path
import numpy as np
from diffrgen.images import cache_writer
from diffrgen.images.cache import CachePlan
from diffrgen.images.resized import read_checked, read_resized
from diffrgen.records import Study
root, images = Path(sys.argv[1]), sorted(Path(sys.argv[2]).iterdir())
made = []
def slow(path, resize):
    made.append(path)
    time.sleep(0.2)
    return read_checked(path, resize)
cache_writer.read_checked = slow
(root / f"ready-{sys.argv[3]}").touch()
while len(list(root.glob("ready-*"))) < 2:
    time.sleep(0.01)
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    plan = CachePlan.of([Study(str(path), "", (path,), "train") for path in images], resize=32)
    cache = cache_writer.open_image_cache(root, plan, threads=1)
assert all(np.array_equal(cache.read(path, 32), read_resized(path, 32)) for path in images)
print(len(made), sum("another process decodes the images" in str(one.message) for one in said))
"""


def test_two_processes_at_once_make_it_once(images, tmp_path):
    root = tmp_path / "cache"
    root.mkdir()
    for number in range(6):
        save(images[0].with_name(f"more-{number}.png"), seed=number)
    command = [sys.executable, "-c", RACER, str(root), str(images[0].parent)]
    racers = [subprocess.Popen([*command, str(n)], stdout=subprocess.PIPE, text=True) for n in range(2)]
    found = sorted(tuple(map(int, racer.communicate(timeout=100)[0].split())) for racer in racers)
    assert [racer.returncode for racer in racers] == [0, 0]
    assert found == [(0, 1), (8, 0)]
    assert len([path for path in root.iterdir() if path.is_dir()]) == 1


def test_a_broken_image_is_named_as_the_check_names_it_and_looked_at_again(images, tmp_path, monkeypatch):
    """Cut off, and a PNG whose checksum alone is wrong; once one can be read, the cache is made anew."""
    folder, root = images[0].parent, tmp_path / "cache"
    cut, flipped, text, second = (folder / name for name in ("cut.jpg", "flipped.png", "text.png", "second.png"))
    cut.write_bytes(images[1].read_bytes()[:-300])
    content = images[0].read_bytes()
    flipped.write_bytes(content[:-13] + bytes([content[-13] ^ 1]) + content[-12:])
    text.write_text("no image")
    second.write_text("nor this")
    studies = [Study(p.name, "", (p,), "train") for p in (*images, cut, flipped, folder / "absent.png")]
    studies.append(Study("two", "", (images[0], second, text), "val"))
    plan = CachePlan.of(studies, resize=RESIZE)
    cache = open_image_cache(root, plan)
    assert cache.faults == check_images(studies)
    assert {path.name for path in cache.faults} == {"cut.jpg", "flipped.png", "absent.png", "second.png", "text.png"}
    assert (cache.folder / PIXELS).stat().st_size == 2 * 32 * 44
    assert ImageCache.load(cache.folder, plan).faults == cache.faults
    monkeypatch.setattr(CachePlan, "fingerprint", plan.fingerprint)
    for path in (text, flipped):
        path.rename(path.with_suffix(".kept"))
        save(path)
        assert ImageCache.load(cache.folder, plan_again(plan)) is None
        path.with_suffix(".kept").rename(path)
        assert ImageCache.load(cache.folder, plan_again(plan)).faults == cache.faults


def plan_again(plan: CachePlan) -> CachePlan:
    return CachePlan(plan.images, plan.resize)


def test_a_fault_that_only_decoding_finds_is_kept_too(images, tmp_path):
    """Pixels that end early behind a checksum that is right, which the check of a file does not look at."""
    short = tmp_path / "short.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40), dtype=np.uint8)).save(short)
    content = short.read_bytes()
    at, end = content.find(b"IDAT"), content.find(b"IEND") - 4
    body = content[at : at + 400]
    head = content[: at - 4] + (len(body) - 4).to_bytes(4, "big")
    short.write_bytes(head + body + zlib.crc32(body).to_bytes(4, "big") + content[end:])
    cache = open_image_cache(tmp_path / "cache", plan_of(*images, short))
    assert list(cache.faults) == [short]
    assert "the image is damaged or cut off" in cache.faults[short]
    assert ImageCache.load(cache.folder, plan_of(*images, short)) is not None


def test_a_disk_that_is_too_small_is_said_before_and_on_the_way(images, tmp_path, monkeypatch):
    """Two images need 2 x 32 x 32 bytes at least; once one of them is there, 32 x 44 more."""
    root, plan, free = tmp_path / "cache", plan_of(*images), []
    monkeypatch.setattr(cache_writer, "SPACE_CHECKED_EVERY", 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(0, 0, free.pop(0)))
    for left in ([2 * 32 * 32 - 1], [2 * 32 * 32, 32 * 44 - 1]):
        free[:] = left
        with pytest.raises(DataError, match=r"needed 0.0 GB more .* got 0.0 GB free; pass --image-cache-folder"):
            open_image_cache(root, plan)
    free[:] = [2 * 32 * 32, 32 * 44, 0]
    open_image_cache(root, plan)
    assert not partial_folders(root)
    assert not free


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_disk_that_fills_up_is_a_clear_error_and_another_fault_stays_itself(images, tmp_path, monkeypatch, number):
    class Full(io.BytesIO):
        def write(self, _: bytes) -> int:
            raise OSError(number, os.strerror(number))

    whole = Path.open
    monkeypatch.setattr(Path, "open", lambda path, *how: Full() if path.name == PIXELS else whole(path, *how))
    kind, message = (DataError, "the disk is full") if number == errno.ENOSPC else (OSError, "Input/output error")
    with pytest.raises(kind, match=message):
        open_image_cache(tmp_path / "cache", plan_of(*images))
    assert not partial_folders(tmp_path / "cache")


def test_another_process_is_sent_the_place_and_not_the_pixels(images, tmp_path):
    cache = open_image_cache(tmp_path / "cache", plan_of(*images))
    sent = pickle.dumps(cache)
    assert np.asarray(cache.read(images[0], RESIZE)).tobytes()[:50] not in sent
    np.testing.assert_array_equal(pickle.loads(sent).read(images[0], RESIZE), cache.read(images[0], RESIZE))


def test_nothing_to_keep_is_kept(tmp_path):
    bad = tmp_path / "bad.png"
    bad.write_text("none")
    cache = open_image_cache(tmp_path / "cache", plan_of(bad))
    assert list(cache.faults) == [bad]
    assert list(open_image_cache(tmp_path / "cache", plan_of()).faults) == []

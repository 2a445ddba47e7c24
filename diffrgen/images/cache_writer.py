"""Writes the cache of decoded images: once and atomically, also if several processes request it."""

from __future__ import annotations

import errno
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from diffrgen.errors import DataError
from diffrgen.images.cache import PIXELS, PLACES, CacheManifest, CachePlan, ImageCache
from diffrgen.images.resized import can_resize, read_checked
from diffrgen.lock import in_turn

MOST_THREADS = 16
WAITING = 256
SPACE_CHECKED_EVERY = 256
ADVICE = "pass --image-cache-folder for another disk, or --no-image-cache to decode the images in every epoch"


@dataclass(frozen=True)
class _Decoded:
    """Pixels (H, W) uint8 to keep, or none of a strip and of what is only checked; `fault`: why it cannot be read."""

    pixels: np.ndarray | None = None
    fault: str | None = None


def open_image_cache(root: Path, plan: CachePlan, *, threads: int | None = None, progress: bool = False) -> ImageCache:
    """Open the cache of `plan` below `root`; make it first where it is missing or no longer fits.

    Several processes that ask at once wait for the one that makes it. threads: that decode, default one a core and at
    most 16.

    Raises:
        DataError: the disk cannot hold it.
        OSError: the folder cannot be written.
    """
    folder = root / plan.name
    found = ImageCache.load(folder, plan)
    if found is not None:
        return found
    with in_turn(root / f".{plan.name}.lock", f"another process decodes the images to {root}; waiting for it"):
        found = ImageCache.load(folder, plan)
        if found is None:
            _write(folder, plan, threads or min(MOST_THREADS, os.cpu_count() or 1), progress)
            found = ImageCache.load(folder, plan)
    if found is None:
        raise DataError(f"{folder}: images changed while they were decoded; start again when nothing writes to them")
    return found


def _write(folder: Path, plan: CachePlan, threads: int, progress: bool) -> None:
    """Write a cache beside `folder`, then put it in its place; whoever has an old one mapped keeps that."""
    stage = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(stage, ignore_errors=True)
    stage.mkdir()
    try:
        _fill(stage, plan, threads, progress)
        if folder.exists():
            shutil.rmtree(folder)
        os.rename(stage, folder)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise DataError(f"{folder.parent}: the disk is full: {error.strerror}; {ADVICE}") from error
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _fill(folder: Path, plan: CachePlan, threads: int, progress: bool) -> None:
    """Decode and check every image of `plan`, and write the three files of the cache."""
    fingerprint = plan.fingerprint
    places = np.zeros((len(plan.images), 3), dtype=np.int64)
    faults: dict[str, str] = {}
    size, count = 0, len(plan.images)
    # A lower bound: a resized image has at least the pixels of a square of the shorter side.
    _check_space(folder, plan, count * plan.resize**2)
    with (folder / PIXELS).open("wb") as stream, ThreadPoolExecutor(threads) as pool:
        decoded = _in_order(pool, lambda path: _decode(path, plan.resize), plan.images)
        bar = tqdm(decoded, "decoding images", count, disable=not progress, leave=False)
        for row, (path, picture) in enumerate(zip(plan.images, bar, strict=True)):
            if picture.fault is not None:
                faults[os.path.abspath(path)] = picture.fault
            if picture.pixels is not None:
                places[row] = (size, *picture.pixels.shape)
                stream.write(picture.pixels.data)
                size += picture.pixels.size
            if row % SPACE_CHECKED_EVERY == SPACE_CHECKED_EVERY - 1:
                stream.flush()
                _check_space(folder, plan, size // (row + 1) * (count - row - 1))
        stream.flush()
        os.fsync(stream.fileno())
    np.save(folder / PLACES, places, allow_pickle=False)
    CacheManifest(fingerprint, plan.resize, size, faults).save(folder)


def _decode(path: Path, resize: int) -> _Decoded:
    try:
        image = read_checked(path, resize)
    except DataError as error:
        return _Decoded(fault=str(error))
    return _Decoded(np.asarray(image) if can_resize(image.size) else None)


def _in_order(
    pool: ThreadPoolExecutor, work: Callable[[Path], _Decoded], items: Iterable[Path]
) -> Iterator[_Decoded]:
    """Yield the results of `work` in the order of `items`; few wait at a time, so that memory and Ctrl-C are bounded."""
    waiting: deque[Future[_Decoded]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) == WAITING:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


def _check_space(folder: Path, plan: CachePlan, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise DataError(
            f"{folder.parent}: needed {needed / 1e9:.1f} GB more for the decoded images ({len(plan.images)} of "
            f"{plan.resize} pixels and more), got {free / 1e9:.1f} GB free; {ADVICE}"
        )

"""The images of a data set, decoded once: grey pixels in one memory-mapped file that everybody who asks shares.

A cache is a folder: pixels.u8, the resized images one after another; places.npy, where each begins and its size;
manifest.json, what they were made from. One that no longer fits its files is not opened, and `open_image_cache` in
`cache_writer` makes it anew.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from diffrgen.errors import DataError
from diffrgen.images.resized import decoder_version, read_checked, read_resized
from diffrgen.records import Study
from diffrgen.records.json_text import parse_json

SCHEMA = 1
PIXELS, PLACES, MANIFEST = "pixels.u8", "places.npy", "manifest.json"


@dataclass(frozen=True)
class CacheManifest:
    """The sources and contents of a cache; `faults`: absolute path -> why it cannot be read."""

    fingerprint: str
    resize: int
    size: int
    """Bytes of pixels."""
    faults: dict[str, str]
    decoder: str = field(default_factory=decoder_version)
    schema: int = SCHEMA

    def save(self, folder: Path) -> None:
        """Write manifest.json."""
        (folder / MANIFEST).write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")


@dataclass(frozen=True)
class CachePlan:
    """The contents of a cache before it is written: `images` with `resize` pixels on their shorter side."""

    images: tuple[Path, ...]
    resize: int

    @classmethod
    def of(cls, studies: Iterable[Study], *, resize: int) -> CachePlan:
        """Plan to keep every image of the studies."""
        return cls(tuple(dict.fromkeys(path for study in studies for path in study.images)), resize)

    @property
    def name(self) -> str:
        """The name of the cache's folder: the same for the same paths, whatever is in the files."""
        return f"images-{self.resize}-{_digest([str(len(self.images)), *map(os.path.abspath, self.images)])}"

    @cached_property
    def fingerprint(self) -> str:
        """A hash of paths, sizes and times of change: another one where a file is another."""
        return _digest([str(len(self.images)), *(f"{os.path.abspath(path)} {_stamp(path)}" for path in self.images)])


class ImageCache:
    """Reads images out of a cache that is there; what it does not hold is decoded from its file."""

    def __init__(self, folder: Path, plan: CachePlan, manifest: CacheManifest, places: np.ndarray) -> None:
        self.folder, self.resize, self.size, self.places = folder, plan.resize, manifest.size, places
        reasons = ((path, manifest.faults.get(os.path.abspath(path))) for path in plan.images)
        self.faults = {path: reason for path, reason in reasons if reason is not None}
        self._rows = {path: row for row, path in enumerate(plan.images)}
        self._pixels = self._map()

    @classmethod
    def load(cls, folder: Path, plan: CachePlan) -> ImageCache | None:
        """Open the cache in `folder`; None if it is missing, damaged, or does not match `plan`.

        One that holds faults is not opened either once one of those files can be read.
        """
        try:
            content: Any = parse_json((folder / MANIFEST).read_text(encoding="utf-8"))
            manifest = CacheManifest(**content)
            places = np.load(folder / PLACES, allow_pickle=False)
            whole = (folder / PIXELS).stat().st_size == manifest.size
        except (OSError, ValueError, TypeError):
            return None
        made = (manifest.schema, manifest.decoder, manifest.resize, manifest.fingerprint)
        asked = (SCHEMA, decoder_version(), plan.resize, plan.fingerprint)
        if made != asked or not whole or not _fit(places, len(plan.images), manifest.size):
            return None
        cache = cls(folder, plan, manifest, places)
        return None if any(map(cache._can_be_read, cache.faults)) else cache

    def read(self, path: Path, resize: int | None = None) -> Image.Image:
        """Return what `read_resized(path, resize)` returns, the same pixels."""
        row = self._rows.get(path) if resize == self.resize else None
        if row is None or not self.places[row, 1]:
            return read_resized(path, resize)
        start, height, width = self.places[row].tolist()
        return Image.fromarray(self._pixels[start : start + height * width].reshape(height, width))

    def _can_be_read(self, path: Path) -> bool:
        try:
            read_checked(path, self.resize)
        except DataError:
            return False
        return True

    def _map(self) -> np.ndarray:
        # An empty file cannot be mapped.
        return np.memmap(self.folder / PIXELS, np.uint8, "r") if self.size else np.empty(0, np.uint8)

    def __getstate__(self) -> dict[str, Any]:
        """Leave the pixels out: a process that is given the cache maps the file itself."""
        return {**self.__dict__, "_pixels": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._pixels = self._map()


def _fit(places: np.ndarray, count: int, size: int) -> bool:
    """Return whether `places` (n, 3) int64 has a place within `size` bytes for each of `count` images."""
    if places.dtype != np.int64 or places.shape != (count, 3) or (places < 0).any():
        return False
    return not count or int((places[:, 0] + places[:, 1] * places[:, 2]).max()) <= size


def _stamp(path: Path) -> str:
    try:
        state = path.stat()
    except OSError as error:
        return f"cannot be seen: {error.strerror}"
    return f"{state.st_size} {state.st_mtime_ns}"


def _digest(parts: Iterable[str]) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        digest.update(part.encode("utf-8", "surrogateescape") + b"\0")
    return digest.hexdigest()

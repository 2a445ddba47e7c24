"""What a frozen encoder makes of every image, computed once and kept in one memory-mapped file."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from diffrgen.errors import DataError
from diffrgen.images import ImageTransform, ReadImage
from diffrgen.images.encoder import PatchEncoder
from diffrgen.images.resized import decoder_version
from diffrgen.lock import in_turn
from diffrgen.model.initial import named_generator
from diffrgen.retrieval.fingerprint import weights_fingerprint
from diffrgen.staging import staged

MAPS, MANIFEST = "maps.npy", "manifest.json"
FORMAT = 1
# Of the crops, the same for trainings of every seed, so that they share what is stored.
SEED = 0


@dataclass(frozen=True)
class CropChoice:
    """Stands where the image transform stands: of an image's stored feature maps it takes one.

    Map 0 is the central crop, for evaluation; with `train` one of the others is drawn, each of which is a random crop
    and rotation. NOTE: so augmentation is a choice among as many crops as are stored, not a new one in every epoch.
    """

    train: bool = False
    resize: int | None = None

    def __call__(self, maps: np.ndarray, generator: torch.Generator | None = None) -> Tensor:
        """Return one feature map (width, gh, gw) float32 of maps (1 + crops, width, gh, gw)."""
        choice = 0
        if self.train and len(maps) > 1:
            choice = 1 + int(torch.randint(len(maps) - 1, (), generator=generator))
        return torch.from_numpy(maps[choice].astype(np.float32))


@dataclass(frozen=True)
class StoredFeatures:
    """The feature maps of images by their paths; each is (1 + crops, width, gh, gw) float16."""

    rows: dict[Path, int]
    maps: np.ndarray

    def read(self, path: Path, resize: int | None = None) -> np.ndarray:
        """Return the maps of an image, as `ReadImage` returns its pixels."""
        return self.maps[self.rows[path]]


@dataclass(frozen=True)
class FeatureReader:
    """The features of several stores, each image's in one of them."""

    parts: tuple[StoredFeatures, ...]

    def read(self, path: Path, resize: int | None = None) -> np.ndarray:
        """Return the maps of an image; KeyError for one that no store holds."""
        return next(part.read(path) for part in self.parts if path in part.rows)


def stored_features(
    root: Path,
    encoder: PatchEncoder,
    images: Sequence[Path],
    *,
    read: ReadImage,
    transform: ImageTransform,
    crops: int,
    device: torch.device | str = "cpu",
    batch_size: int = 16,
    progress: bool = True,
) -> StoredFeatures:
    """Return the features of `images`, computed now unless that has been done; kept below `root`.

    They are kept under a digest of the encoder's weights, the transform, the number of crops and the images'
    paths, sizes and times of change. transform: the training transform; map 0 is made by its evaluation form.
    Raises DataError where they cannot be written.
    """
    key = _key(encoder, images, transform, crops)
    folder = root / f"features-{key[:16]}"
    rows = {path: row for row, path in enumerate(images)}
    try:
        if not (folder / MANIFEST).is_file():
            with in_turn(root / f".{folder.name}.lock", f"another process computes features in {root}; waiting for it"):
                if not (folder / MANIFEST).is_file():
                    with staged(folder) as stage:
                        network = encoder.to(device).eval()
                        _compute(stage / MAPS, network, images, read, transform, crops, batch_size, progress)
                        (stage / MANIFEST).write_text(json.dumps({"key": key, "format": FORMAT}) + "\n")
        maps = np.load(folder / MAPS, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise DataError(
            f"{folder}: needed room for the features of {len(images)} images, got: {error}; delete this folder or set "
            "DIFFRGEN_CACHE to another disk"
        ) from error
    return StoredFeatures(rows, maps)


def _key(encoder: PatchEncoder, images: Sequence[Path], transform: ImageTransform, crops: int) -> str:
    parts = [FORMAT, weights_fingerprint(encoder), asdict(replace(transform, train=False)), crops, SEED, decoder_version()]
    digest = hashlib.sha256(json.dumps(parts).encode())
    for path in images:
        about = path.stat()
        digest.update(json.dumps([os.path.abspath(path), about.st_size, about.st_mtime_ns]).encode())
    return digest.hexdigest()


@torch.inference_mode()
def _compute(
    file: Path,
    encoder: PatchEncoder,
    images: Sequence[Path],
    read: ReadImage,
    transform: ImageTransform,
    crops: int,
    batch_size: int,
    progress: bool,
) -> None:
    grid = encoder.grid(transform.size, transform.size)
    shape = (len(images), 1 + crops, encoder.width, *grid)
    maps = np.lib.format.open_memmap(file, "w+", np.float16, shape)
    device = next(encoder.parameters()).device
    central = replace(transform, train=False)
    bar = tqdm(range(0, len(images), batch_size), desc="features of the frozen encoder", unit="batch", disable=not progress)
    for first in bar:
        batch = images[first : first + batch_size]
        pictures = [read(path, transform.resize) for path in batch]
        for crop in range(1 + crops):
            pixels = torch.stack(
                [
                    transform(picture, named_generator(SEED, f"{first + place} {crop}")) if crop else central(picture)
                    for place, picture in enumerate(pictures)
                ]
            )
            patches = encoder(pixels.to(device)).patches  # (B, m, width)
            maps[first : first + len(batch), crop] = patches.mT.unflatten(-1, grid).half().cpu().numpy()
    maps.flush()

"""A frozen encoder's feature maps of every image, computed once and stored in one memory-mapped file."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from diffrgen.errors import DataError
from diffrgen.fingerprint import weights_fingerprint
from diffrgen.images import ImageTransform, ReadImage
from diffrgen.images.encoder import PatchEncoder
from diffrgen.images.resized import decoder_version
from diffrgen.lock import in_turn
from diffrgen.model.initial import named_generator
from diffrgen.staging import staged

MAPS, MANIFEST = "maps.npy", "manifest.json"
FORMAT = 1
# Seed of the crops; the same for every training seed, so that all share the stored features.
SEED = 0


@dataclass(frozen=True)
class CropChoice:
    """Takes the place of the image transform: selects one of an image's stored feature maps.

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


@dataclass(frozen=True)
class FeatureRecipe:
    """The recipe of stored feature maps: the encoder, the central crop and the number of random crops.

    transform: the training transform; map 0 is made by its evaluation form.
    """

    encoder: PatchEncoder
    transform: ImageTransform
    crops: int

    def key(self, images: Sequence[Path]) -> str:
        """Return what the features of `images` are kept under; OSError for an image that is gone."""
        encoder, transform = weights_fingerprint(self.encoder), asdict(replace(self.transform, train=False))
        parts = [FORMAT, encoder, transform, self.crops, SEED, decoder_version()]
        digest = hashlib.sha256(json.dumps(parts).encode())
        for path in images:
            about = path.stat()
            digest.update(json.dumps([os.path.abspath(path), about.st_size, about.st_mtime_ns]).encode())
        return digest.hexdigest()

    def crops_of(self, picture: Image.Image, place: int) -> list[Tensor]:
        """Return the central crop of a picture, then the drawn ones, (channels, S, S) each; `place`: in the list of images."""
        drawn = (named_generator(SEED, f"{place} {crop}") for crop in range(1, 1 + self.crops))
        return [replace(self.transform, train=False)(picture), *(self.transform(picture, one) for one in drawn)]


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
    Raises DataError if they cannot be written.
    """
    recipe = FeatureRecipe(encoder, transform, crops)
    key = recipe.key(images)
    folder = root / f"features-{key[:16]}"
    rows = {path: row for row, path in enumerate(images)}
    try:
        if not (folder / MANIFEST).is_file():
            with in_turn(root / f".{folder.name}.lock", f"another process computes features in {root}; waiting for it"):
                if not (folder / MANIFEST).is_file():
                    with staged(folder) as stage:
                        encoder.to(device).eval()
                        batches = [images[first : first + batch_size] for first in range(0, len(images), batch_size)]
                        _compute(stage / MAPS, recipe, batches, read, progress)
                        (stage / MANIFEST).write_text(json.dumps({"key": key, "format": FORMAT}) + "\n")
        maps = np.load(folder / MAPS, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise DataError(
            f"{folder}: needed room for the features of {len(images)} images, got: {error}; delete this folder or set "
            "DIFFRGEN_CACHE to another disk"
        ) from error
    return StoredFeatures(rows, maps)


@torch.inference_mode()
def _compute(
    file: Path, recipe: FeatureRecipe, batches: Sequence[Sequence[Path]], read: ReadImage, progress: bool
) -> None:
    """Write the feature maps of the images of `batches`, (n, 1 + crops, width, gh, gw), to `file`."""
    encoder, size = recipe.encoder, recipe.transform.size
    grid, device = encoder.grid(size, size), next(encoder.parameters()).device
    shape = (sum(map(len, batches)), 1 + recipe.crops, encoder.width, *grid)
    maps = np.lib.format.open_memmap(file, "w+", np.float16, shape)
    done = 0
    for batch in tqdm(batches, desc="features of the frozen encoder", unit="batch", disable=not progress):
        pictures = [read(path, recipe.transform.resize) for path in batch]
        crops = [recipe.crops_of(picture, place) for place, picture in enumerate(pictures, start=done)]
        for number, pixels in enumerate(zip(*crops, strict=True)):
            patches = encoder(torch.stack(pixels).to(device)).patches  # (B, m, width)
            maps[done : done + len(batch), number] = patches.mT.unflatten(-1, grid).half().cpu().numpy()
        done += len(batch)
    maps.flush()

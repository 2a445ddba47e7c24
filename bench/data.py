"""`python bench/data.py`: how fast images reach the training step, from their files and from the kept images.

PNG and JPEG files of noise on a gradient, 1.3 megapixels, go through the loader of `python -m diffrgen.train --preset
paper` (256 -> crop 224, rotation, 21 neighbours, batches of 16). Reported are images a second of the loader alone, of
making the cache and of the check that it replaces, and the share of time that a step of a given length, in which this
process sleeps as it would for a GPU, waits for its batch.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from machine import describe
from PIL import Image
from result import publish
from timing import Spread
from torch.utils.data import DataLoader

from diffrgen.images import ImageTransform, ReadImage, check_images, read_resized
from diffrgen.images.cache import CachePlan
from diffrgen.images.cache_writer import open_image_cache
from diffrgen.pipeline.dataset import Example, ExampleSettings, StudyDataset, example_loader
from diffrgen.records import Study
from diffrgen.retrieval import IndexedStudies, Neighbours, write_index
from diffrgen.text import train_tokenizer
from diffrgen.training.waiting import BatchTimer

REPORT = "the heart is normal in size and the lungs are clear ."
TRANSFORM = ImageTransform(size=224, resize=256, rotation=5.0, channels=3, train=True)
FORMATS = ("png", "jpg")


@dataclass(frozen=True)
class Sizes:
    """Distinct images, their pixels, studies (images come again), batch, neighbours N and their width E, rounds."""

    images: int = 32
    width: int = 1280
    height: int = 1040
    studies: int = 256
    batch: int = 16
    neighbours: int = 21
    embedding: int = 512
    rounds: int = 3


QUICK = Sizes(images=6, width=140, height=100, studies=24, batch=4, neighbours=3, embedding=8, rounds=1)


def write_images(folder: Path, kind: str, sizes: Sizes) -> tuple[Study, ...]:
    """Write the images and return studies that show them in turn."""
    folder.mkdir()
    draw, paths = np.random.default_rng(0), []
    slope = np.linspace(40, 200, sizes.width) + np.linspace(-30, 30, sizes.height)[:, None]
    for number in range(sizes.images):
        film = slope + draw.normal(0, 6, slope.shape)
        paths.append(folder / f"{number}.{kind}")
        Image.fromarray(film.clip(0, 255).astype(np.uint8)).save(paths[-1])
    return tuple(
        Study(str(row), REPORT, (paths[row % len(paths)],), "train", labels=(0,) * 14) for row in range(sizes.studies)
    )


def make_dataset(folder: Path, studies: Sequence[Study], sizes: Sizes, read: ReadImage) -> StudyDataset:
    """The data set of training, with a random index and random neighbours."""
    draw = np.random.default_rng(0)
    indexed = IndexedStudies.of(ids=[s.id for s in studies], reports=[f"{s.id} {s.report}" for s in studies])
    embeddings = draw.standard_normal((len(studies), sizes.embedding)).astype(np.float32)
    index = write_index(folder, indexed, embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True))
    rows = draw.integers(0, len(studies), (len(studies), sizes.neighbours))
    neighbours = Neighbours(rows, np.ones(rows.shape, np.float32), np.ones(rows.shape, bool))
    tokenizer = train_tokenizer([REPORT], vocab_size=200, min_frequency=1)
    return StudyDataset(studies, neighbours, ExampleSettings(TRANSFORM, tokenizer, "mimic", 100, index, read=read))


def rate(work: Callable[[], object], images: int) -> float:
    """Images a second of `work`."""
    started = time.perf_counter()
    work()
    return images / (time.perf_counter() - started)


def processor_rate(work: Callable[[], object], images: int) -> float:
    """Images a second of this process's processor time: what one core does that has nothing else to do."""
    started = time.process_time()
    work()
    return images / (time.process_time() - started)


def exhaust(loader: DataLoader[Example]) -> None:
    for _ in loader:
        pass


def waiting_share(loader: DataLoader[Example], seconds: float) -> float:
    """The share (0..1) of the time that steps of so many seconds wait, the start of the workers left out."""
    timer, batches = BatchTimer(), iter(loader)
    next(batches)
    for _ in timer.timed(batches):
        time.sleep(seconds)
    return timer.share


def measure(kind: str, sizes: Sizes, *, workers: int, steps: Sequence[float]) -> dict[str, Any]:
    """Measure one format; the loaders take turns."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        studies = write_images(folder / "images", kind, sizes)
        check = rate(lambda: check_images(studies), sizes.images)
        plan = CachePlan.of(studies, resize=TRANSFORM.resize)
        making = rate(lambda: open_image_cache(folder / "cache", plan), sizes.images)
        cache = open_image_cache(folder / "cache", plan)
        loaders = {
            f"{label}, {count} workers": example_loader(
                make_dataset(folder / "index", studies, sizes, read), batch_size=sizes.batch, workers=count, passes=True
            )
            for label, read in (("files", read_resized), ("kept", cache.read))
            for count in dict.fromkeys((0, workers))
        }
        rates: dict[str, list[float]] = {label: [] for label in loaders}
        for turn in range(sizes.rounds + 1):
            for label, loader in loaders.items():
                found = rate(lambda loader=loader: exhaust(loader), sizes.studies)
                # The first turn starts the workers and warms the disk's cache.
                rates[label] += [found] if turn else []
        alone = {
            label: processor_rate(lambda loader=loader: exhaust(loader), sizes.studies)
            for label, loader in loaders.items()
            if loader.num_workers == 0
        }
        waits = {
            label: {str(seconds): waiting_share(loader, seconds) for seconds in steps}
            for label, loader in loaders.items()
        }
    return {
        "check_images_per_second": check,
        "making_images_per_second": making,
        "loader_images_per_second": {label: asdict(Spread.of(values)) for label, values in rates.items()},
        "images_per_processor_second": alone,
        "waiting_share_by_step_seconds": waits,
    }


def main(arguments: Sequence[str]) -> int:
    """Measure, print, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=2, help="beside a loader without workers")
    parser.add_argument("--step-seconds", type=float, nargs="+", default=[0.05, 0.1, 0.2], help="lengths of a step")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    parser.add_argument("--rounds", type=int, default=Sizes.rounds, help="turns of each loader (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="tiny sizes")
    options = parser.parse_args(arguments)
    sizes = QUICK if options.quick else replace(Sizes(), rounds=options.rounds)
    formats = {kind: measure(kind, sizes, workers=options.workers, steps=options.step_seconds) for kind in FORMATS}
    result = {"machine": describe("cpu"), "sizes": asdict(sizes), "formats": formats}
    publish(result, options.output)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

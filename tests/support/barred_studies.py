"""Studies whose images show a bar that their reports name, and a small retriever's options for them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from transformers import ResNetConfig

from diffrgen.images import ImageTransform
from diffrgen.records import Study
from diffrgen.retrieval import RetrieverOptions

ENCODER = ResNetConfig(num_channels=1, embedding_size=16, hidden_sizes=[16, 32], depths=[1, 1], layer_type="basic")
TRANSFORM = ImageTransform(size=32, resize=36, rotation=3.0, train=True)
OPTIONS = RetrieverOptions(
    epochs=4,
    batch_size=8,
    learning_rate=3e-3,
    embedding_width=32,
    text_layers=1,
    text_width=64,
    max_tokens=16,
    neighbours=5,
    tokens_per_report=6,
)
PLACES = ("top", "high", "low", "bottom")


def draw_studies(folder: Path, count: int) -> tuple[Study, ...]:
    folder.mkdir()
    rng = np.random.default_rng(0)
    studies = []
    for number in range(count):
        pixels = rng.integers(0, 40, (40, 40))
        pixels[10 * (number % 4) : 10 * (number % 4) + 5] += 200
        path = folder / f"{number}.png"
        Image.fromarray(pixels.astype(np.uint8)).save(path)
        report = f"a bar at the {PLACES[number % 4]} in film {number if number < 20 else 'x'} ."
        studies.append(Study(f"s{number}", report, (path,), "train", patient_id=f"p{number // 3}"))
    return tuple(studies)

"""A training that takes seconds: twenty random studies, two a patient, and a small network."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file

from diffrgen import train as train_command
from diffrgen.labels import FINDINGS
from diffrgen.training.checkpoints import list_checkpoints

STUDIES, TRAINING, BATCH = 20, 16, 4
EPOCH = TRAINING // BATCH
OPTIONS = f"""
    --image.size 32 --image.resize 34 --text.min-frequency 1 --text.max-tokens 12 --workers 0
    --retriever.max-steps 1 --retriever.batch-size 8 --retriever.neighbours 3 --retriever.embedding-width 16
    --model.width 16 --model.heads 2 --model.dropout 0.1
    --optimiser.batch-size {BATCH} --optimiser.epochs 3 --validation-studies 2
""".split()


def write_studies(folder: Path, *, views: Sequence[str] = ()) -> Path:
    """Write random images and labels to `folder` and return the annotation; without a test split nothing is scored.

    views: names of views. Study 0 has none of them beside its one image, study 1 the first, and so on in turn.
    """
    folder.mkdir()
    draw, studies = np.random.default_rng(0), []
    for number in range(STUDIES):
        Image.fromarray(draw.integers(0, 256, (34, 34), dtype=np.uint8)).save(folder / f"{number}.png")
        more = views[: number % (len(views) + 1)]
        for name in more:
            pixels = np.random.default_rng([number, *name.encode()]).integers(0, 256, (34, 34), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{number}-{name}.png")
        states = draw.integers(0, 2, len(FINDINGS)).tolist()
        said = [name if state else f"no {name}" for name, state in zip(FINDINGS, states, strict=True)]
        report = " . ".join(said[: 2 + number % 5])
        patient = {"patient_id": str(number // 2), "days": number % 2}
        record = {"id": str(number), "report": report, "image_path": [f"{number}.png"], "labels": states}
        if views:
            record["image_path"] += [f"{number}-{name}.png" for name in more]
            record["views"] = ["PA", *more]
        studies.append({**record, **patient})
    path = folder / "annotation.json"
    path.write_text(json.dumps({"train": studies[:TRAINING], "val": studies[TRAINING:]}))
    return path


def arguments(data: Path, output: Path, *more: str) -> list[str]:
    """Return the command line of a tiny training on `data`."""
    return ["--data", str(data), "--images", str(data.parent), "--output", str(output), *OPTIONS, *more]


def start(data: Path, output: Path, *more: str) -> int:
    """Run the command, or go on with it where it was begun; return its exit status.

    Without the picture that ends a training, which is a quarter of a tiny one: tests/training/test_curves.py has its tests.
    """
    begun = (output / "train.json").is_file()
    command = ["--resume", "--output", str(output), *more] if begun else arguments(data, output, *more)
    with patch("diffrgen.training.run.draw_curves"):
        return train_command.main(command)


def log_lines(run: Path) -> list[dict]:
    """The whole lines of the log, none where there is no log yet."""
    path = run / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.is_file() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def differences(run: Path, other: Path) -> list[str]:
    """Name what differs, to the bit, between two finished runs: the logs, the newest checkpoints, the best weights."""
    found = [] if log_lines(run) == log_lines(other) else ["metrics.jsonl"]
    newest = [list_checkpoints(folder / "checkpoints")[-1] for folder in (run, other)]
    if newest[0].name != newest[1].name:
        return [*found, f"{newest[0].name} and {newest[1].name}"]
    for folders in (newest, (run, other)):
        mine, theirs = (load_file(folder / "model.safetensors") for folder in folders)
        found += [f"{folders[0]}: {name}" for name in mine if not torch.equal(mine[name], theirs[name])]
    return found

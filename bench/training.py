"""`python bench/training.py`: seconds a training step with the fused operator and with the reference.

`synthetic` steps the network on random images and neighbours, the two in turns; `command` runs
`python -m diffrgen.train` on a small phantom and reads the times of its steps out of the run's TensorBoard log.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from cases import ROOT
from network import SETTINGS, Backend, Setting, make_batch, make_network
from timing import Spread, clock

from diffrgen.optimiser import make_adamw

NEEDED = ("faiss", "pydantic", "tyro", "pycocoevalcap", "accelerate", "tensorboard", "tqdm", "rich")
BACKENDS: dict[str, Backend] = {"fused": "auto", "reference": "reference"}
ROUNDS = 5


def make_step(setting: Setting, backend: Backend, device: str) -> Callable[[], None]:
    """A training step in bf16 autocast on a GPU, in float32 on a CPU."""
    with torch.device(device):
        network = make_network(setting, backend)
    batch = make_batch(setting, device)
    optimiser = make_adamw(network, learning_rate=1e-5, weight_decay=0.05)

    def step() -> None:
        with torch.autocast(device, dtype=torch.bfloat16, enabled=device == "cuda"):
            loss = network(**batch).loss
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()

    return step


def synthetic(name: str, device: str) -> dict[str, Any]:
    """Seconds a step of both operators, in turns, and how many times the reference's is longer."""
    setting = SETTINGS[name]
    steps = {label: make_step(setting, backend, device) for label, backend in BACKENDS.items()}
    for step in steps.values():
        step()
        step()
    seconds: dict[str, list[float]] = {label: [] for label in steps}
    for _ in range(ROUNDS):
        for label, step in steps.items():
            seconds[label].append(clock(step, setting.steps if device == "cuda" else 1, device))
    spreads = {label: Spread.of(values) for label, values in seconds.items()}
    ratio = spreads["reference"].median / spreads["fused"].median
    return {
        "setting": asdict(setting),
        "seconds_per_step": {label: asdict(spread) for label, spread in spreads.items()},
        "reference_over_fused": ratio,
    }


def command(folder: Path, *, preset: str, steps: int, studies: int, precision: str) -> dict[str, Any]:
    """Train twice on a small phantom, the second time with the first one's retriever; seconds a step of each.

    Raises:
        RuntimeError: a package is missing, or a run failed; says which and why.
    """
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise RuntimeError(f"python -m diffrgen.train needs {', '.join(missing)}, not installed here")
    shared = ["--preset", preset, "--max-steps", str(steps), "--phantom.studies", str(studies)]
    shared += ["--validation-studies", "2", "--retriever.max-steps", "5", "--precision", precision, "--workers", "2"]
    result: dict[str, Any] = {}
    for label, flag in (("fused", "--fused-kernels"), ("reference", "--no-fused-kernels")):
        run = folder / label
        arguments = [*shared, flag, "--output", str(run)]
        if label == "reference":
            arguments += ["--retriever-path", str(folder / "fused" / "retriever")]
        done = subprocess.run(
            [sys.executable, "-m", "diffrgen.train", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join(arguments)} ended with {done.returncode}: {done.stderr[-2000:]}")
        result[label] = seconds_per_step(run)
    return {"seconds_per_step": result, "reference_over_fused": result["reference"] / result["fused"]}


def seconds_per_step(run: Path) -> float:
    """Mean time of a step between the first and the last logged training step of a run's first epoch."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    logged = events.Scalars("train/loss")
    if len(logged) < 2:
        raise RuntimeError(f"{run}: needed two logged training steps, got {len(logged)}; train longer")
    first, last = logged[0], logged[-1]
    return (last.wall_time - first.wall_time) / (last.step - first.step)


def main(arguments: Sequence[str]) -> int:
    """Measure what is asked for, print it, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("synthetic", "command"))
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=["paper", "tokens_512px"])
    parser.add_argument("--output", type=Path, help="JSON file to write")
    parser.add_argument("--quick", action="store_true", help="tiny sizes")
    options = parser.parse_args(arguments)
    if options.what == "synthetic":
        settings = ["quick"] if options.quick else options.settings
        result = {name: synthetic(name, options.device) for name in settings}
    else:
        sizes: dict[str, Any] = {"preset": "paper", "steps": 30, "studies": 800, "precision": "bf16"}
        if options.quick:
            sizes = {"preset": "tiny", "steps": 20, "studies": 300, "precision": "fp32"}
        with tempfile.TemporaryDirectory() as folder:
            result = {sizes["preset"]: command(Path(folder), **sizes)}
    text = json.dumps(result, indent=1)
    print(text)
    if options.output:
        options.output.write_text(text + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""`python bench/training.py`: seconds a training step with the fused operator and with the reference.

`synthetic` steps the network on random images and neighbours, the ways to do so in turns, and tells where the time
goes, the share of the machine's matrix products that is reached, and memory; `command` runs `python -m diffrgen.train`
on a small phantom and reads the times of its steps out of the run's TensorBoard log.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cases import ROOT
from limits import measured_limits
from machine import describe
from memory import peak_bytes
from network import SETTINGS, Backend, Setting, make_batch, make_network
from parts import parts_of, time_shares
from timing import Spread, clock
from torch.utils.flop_counter import FlopCounterMode

from diffrgen.fitting.optimiser import make_adamw

NEEDED = ("faiss", "pydantic", "tyro", "pycocoevalcap", "accelerate", "tensorboard", "tqdm", "rich")
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
PRECISION = {"cpu": "fp32", "cuda": "bf16"}
ROUNDS = 5


@dataclass(frozen=True)
class Way:
    """A way to take a training step; precision: of the way, else what is asked for."""

    backend: Backend
    compiled: bool = False
    precision: str | None = None


WAYS = {
    "fused": Way("auto"),
    "reference": Way("reference"),
    "fused_compiled": Way("auto", compiled=True),
    "reference_compiled": Way("reference", compiled=True),
    "fused_bf16": Way("auto", precision="bf16"),
    "fused_bf16_compiled": Way("auto", compiled=True, precision="bf16"),
}


class Trainer:
    """One network, its optimiser and one batch."""

    def __init__(self, setting: Setting, way: Way, device: str, precision: str) -> None:
        with torch.device(device):
            self.network = make_network(setting, way.backend)
        self.run = torch.compile(self.network) if way.compiled else self.network
        self.batch = make_batch(setting, device)
        self.optimiser = make_adamw(self.network, learning_rate=1e-5, weight_decay=0.05)
        self.device, self.dtype = device, DTYPES[way.precision or precision]

    def step(self) -> None:
        """Forward in autocast where the type is not float32, backward, AdamW."""
        with torch.autocast(self.device, dtype=self.dtype, enabled=self.dtype != torch.float32):
            loss = self.run(**self.batch).loss
        loss.backward()
        self.optimiser.step()
        self.optimiser.zero_grad()

    def flops(self) -> int:
        """Those of a step, Eq. 5 counted dense."""
        counter = FlopCounterMode(display=False)
        with counter:
            self.step()
        return counter.get_total_flops()


def synthetic(
    setting: Setting, device: str, ways: Sequence[str], precision: str, rounds: int = ROUNDS
) -> dict[str, Any]:
    """Seconds a step in turns, and how many times the reference's is longer; shares of time, FLOPs and memory.

    The processor's seconds are those of all threads; on one thread they hardly depend on what else the machine does.
    """
    trainers = {name: Trainer(setting, WAYS[name], device, precision) for name in ways}
    for name, trainer in trainers.items():
        for _ in range(2 if WAYS[name].compiled else 1):
            trainer.step()
    seconds, processor = ({name: [] for name in ways} for _ in range(2))
    calls = setting.steps if device == "cuda" else 1
    for turn in range(rounds):
        # Each round begins with another.
        for name in np.roll(ways, turn).tolist():
            before = time.process_time()
            seconds[name].append(clock(trainers[name].step, calls, device))
            processor[name].append((time.process_time() - before) / calls)
    spreads, busy = ({name: Spread.of(x) for name, x in values.items()} for values in (seconds, processor))
    eager = {name: trainer for name, trainer in trainers.items() if not WAYS[name].compiled}
    counted = next(iter(eager.values()), None)
    flops = None if counted is None else counted.flops()
    limits = {name: measured_limits(device, trainer.dtype).flops for name, trainer in trainers.items()}
    found = {
        "setting": asdict(setting),
        "ways": {name: {**asdict(WAYS[name]), "precision": WAYS[name].precision or precision} for name in ways},
        "seconds_per_step": {name: asdict(spread) for name, spread in spreads.items()},
        "processor_seconds_per_step": {name: asdict(spread) for name, spread in busy.items()},
        "images_per_second": {name: setting.studies / spread.median for name, spread in spreads.items()},
        "flops_per_step": flops,
        "gemm_flops_per_second": limits,
        "share_of_gemm": {n: flops / spread.median / limits[n] for n, spread in spreads.items()} if flops else {},
        "shares_of_time": {name: time_shares(parts_of(each.network), each.step, device) for name, each in eager.items()},
        "peak_gib": {name: _gib(peak_bytes(each.step, device)) for name, each in trainers.items()},
    }
    reference = spreads.get("reference")
    if reference is not None:
        found["reference_over"] = {name: reference.median / spread.median for name, spread in spreads.items()}
        took = busy["reference"].median
        found["reference_over_in_processor_seconds"] = {name: took / spread.median for name, spread in busy.items()}
    return found


def _gib(count: int | None) -> float | None:
    return None if count is None else count / 2**30


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
    parser.add_argument("--studies", type=int, help="a batch; default: the setting's")
    parser.add_argument("--ways", nargs="+", choices=WAYS, help="default: all on a GPU, those not compiled on a CPU")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="turns of each way (default: %(default)s)")
    parser.add_argument("--precision", choices=DTYPES, help="default: bf16 on a GPU, fp32 on a CPU")
    parser.add_argument("--output", type=Path, help="JSON file to write, anew after each setting")
    parser.add_argument("--quick", action="store_true", help="tiny sizes")
    options = parser.parse_args(arguments)
    settings: dict[str, Any] = {}
    result = {"machine": describe(options.device), "settings": settings}
    for name, found in (synthetic_settings if options.what == "synthetic" else trained_presets)(options):
        settings[name] = found
        if options.output:
            options.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))
    return 0


def synthetic_settings(options: argparse.Namespace) -> Iterator[tuple[str, dict[str, Any]]]:
    """The measurements of each setting, by name."""
    device, precision = options.device, options.precision or PRECISION[options.device]
    default = [name for name, way in WAYS.items() if not way.precision and (device == "cuda" or not way.compiled)]
    ways = options.ways or default
    for name in ["quick"] if options.quick else options.settings:
        setting = replace(SETTINGS[name], studies=options.studies or SETTINGS[name].studies)
        yield name, synthetic(setting, device, ways, precision, options.rounds)


def trained_presets(options: argparse.Namespace) -> Iterator[tuple[str, dict[str, Any]]]:
    """The times of the command, by preset."""
    sizes: dict[str, Any] = {"preset": "paper", "steps": 30, "studies": 800, "precision": "bf16"}
    if options.quick:
        sizes = {"preset": "tiny", "steps": 20, "studies": 300, "precision": "fp32"}
    with tempfile.TemporaryDirectory() as folder:
        yield sizes["preset"], command(Path(folder), **sizes)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

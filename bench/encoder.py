"""`python bench/encoder.py`: the image encoder on a CPU, in parts and channels last, beside its network called as it is."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from inputs import Step
from machine import describe
from result import publish
from timing import Spread, interleave, make_sampler
from torch import Tensor, nn

from diffrgen.images.encoder import PatchEncoder, encoder_config

# Images and pixels a side of each encoder.
CASES = {"efficientnet-lite0": (64, 224), "paper": (32, 224), "tiny": (32, 112)}
SECONDS = 20.0


def make_encoder(name: str) -> PatchEncoder:
    """An encoder by its name in the options; EfficientNet-Lite0 needs its package of weights."""
    if name == "efficientnet-lite0":
        return PatchEncoder.from_pretrained(name)
    return PatchEncoder(encoder_config(name))


def patches(encoder: PatchEncoder, images: Tensor) -> Tensor:
    return encoder(images).patches


def as_it_is(encoder: PatchEncoder, images: Tensor) -> Tensor:
    return encoder.model(images).last_hidden_state


def inference(encode: Step) -> Step:
    def step() -> None:
        with torch.inference_mode():
            encode()

    return step


def training(encode: Step, network: nn.Module) -> Step:
    def step() -> None:
        encode().sum().backward()
        network.zero_grad()

    return step


def measure(name: str, images: int, size: int, seconds: float) -> dict[str, Any]:
    """Processor seconds of a call, user and system, and times as fast as the network called as it is."""
    encoder = make_encoder(name)
    batch = torch.randn(images, encoder.channels, size, size, generator=torch.Generator().manual_seed(0))
    calls = {"now": lambda: patches(encoder, batch), "as it is": lambda: as_it_is(encoder, batch)}
    found: dict[str, Any] = {"encoder": name, "images": images, "size": size}
    for part in ("inference", "training"):
        encoder.train(part == "training")
        steps = {key: inference(call) if part == "inference" else training(call, encoder) for key, call in calls.items()}
        rounds = interleave({key: make_sampler([step], "cpu", "processor") for key, step in steps.items()}, seconds)
        times = {key: [second for turn in turns for second in turn] for key, turns in rounds.items()}
        ratios = [before / now for before, now in zip(times["as it is"], times["now"], strict=True)]
        found[part] = {
            **{key: asdict(Spread.of(values)) for key, values in times.items()},
            "times as fast": asdict(Spread.of(ratios)),
            "rounds": len(ratios),
        }
    return found


def main(arguments: Sequence[str]) -> int:
    """Measure, print it, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--encoders", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of each comparison (default: %(default)s)")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    parser.add_argument("--quick", action="store_true", help="few small images, to try the script itself")
    options = parser.parse_args(arguments)
    cases = {name: (2, 64) if options.quick else CASES[name] for name in options.encoders}
    seconds = 0.0 if options.quick else options.seconds
    results = [measure(name, *case, seconds) for name, case in cases.items()]
    publish({"machine": describe("cpu"), "clock": "processor time, user and system", "results": results}, options.output)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""`python bench/generation.py`: reports a second, and where the time goes, with random weights and full-length reports.

Contenders take turns on the same batch and the same decoder weights: this project's network; the same with the cache
that `transformers` would choose; and `transformers`' own VisionEncoderDecoderModel, which is handed the encoded image,
whose time is counted for it too. They must write the same reports, but for the one in bf16.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from diffrgen_kernels.inspect import table
from machine import describe
from network import SETTINGS, Setting, make_batch, make_network
from timing import Spread, clock, interleave
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from transformers import (
    DynamicCache,
    EncoderDecoderCache,
    VisionEncoderDecoderConfig,
    VisionEncoderDecoderModel,
    ViTConfig,
)
from transformers.modeling_outputs import BaseModelOutput

from diffrgen.model import DiffRGenForReportGeneration, StudyInputs
from diffrgen.model.beam_cache import CACHE

CONTENDERS = ("ours", "transformers_cache", "vision_encoder_decoder", "ours_bf16")
BEAMS = 3
PROFILED_TOKENS = 20  # the profiler keeps every operation: whole reports took 20 GB
# operations by what they are for; the rest is "other"
KINDS = {
    "products": ("addmm", "aten::mm", "bmm", "linear", "gemm"),
    "convolutions": ("conv",),
    "attention": ("attention", "flash"),
    "reordering and copies": ("index_select", "copy_", "aten::cat"),
    "softmax and choice of beams": ("softmax", "topk", "sort", "gather"),
}
Write = Callable[[], Tensor]


class Calls:
    """Times one contender: a call a sample. processor: seconds of all threads of each call."""

    how = "clock"

    def __init__(self, write: Write, device: str) -> None:
        self.write, self.device = write, device
        self.processor: list[float] = []

    def sample(self) -> list[float]:
        """Seconds of one call."""
        before = time.process_time()
        seconds = clock(self.write, 1, self.device)
        self.processor.append(time.process_time() - before)
        return [seconds]


class Desk:
    """One network and one batch, and the ways to generate its reports; every way returns tokens (B, T)."""

    def __init__(self, setting: Setting, device: str) -> None:
        with torch.device(device):
            self.network = make_network(setting, "auto").eval()
            self.plain = plain_decoder(self.network)
        self.inputs = StudyInputs.of(make_batch(setting, device))
        self.write_tokens(setting.tokens)

    def write_tokens(self, count: int) -> None:
        """Let every report have so many tokens."""
        self.settings: dict[str, Any] = {"num_beams": BEAMS, "max_new_tokens": count, "min_new_tokens": count}

    def ours(self) -> Tensor:
        """As `write_reports` does."""
        return self.network.generate(self.inputs, **self.settings)

    def ours_bf16(self) -> Tensor:
        """As `write_reports` does with --generation.precision bf16."""
        with torch.autocast(self.inputs.pixel_values.device.type, dtype=torch.bfloat16):
            return self.ours()

    def transformers_cache(self) -> Tensor:
        """With the cache that `transformers` chooses where none is given."""
        cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        return self.network.generate(self.inputs, **{CACHE: cache}, **self.settings)

    @torch.no_grad()
    def encoded(self) -> tuple[Tensor, Tensor]:
        """The decoder's memory and its prompt."""
        study = self.network.encode(self.inputs)
        return study.last_hidden_state, self.network.prompt_ids(study.disease_logits.argmax(1))

    @torch.no_grad()
    def vision_encoder_decoder(self) -> Tensor:
        """By `transformers`' VisionEncoderDecoderModel, after this project's encoder."""
        memory, prompt = self.encoded()
        tokens = self.plain.generate(
            encoder_outputs=BaseModelOutput(last_hidden_state=memory), decoder_input_ids=prompt, **self.settings
        )
        return tokens[:, prompt.shape[1] :]

    def ways(self, names: Sequence[str]) -> dict[str, Write]:
        """The contenders of these names."""
        return {name: getattr(self, name) for name in names}

    def shares(self, names: Sequence[str], device: str) -> dict[str, dict[str, float]]:
        """The share of each kind of operation in the time of the first tokens of a report."""
        self.write_tokens(PROFILED_TOKENS)
        return {name: shares(write, device) for name, write in self.ways(names).items()}


def plain_decoder(network: DiffRGenForReportGeneration) -> VisionEncoderDecoderModel:
    """`transformers`' model with the same decoder; its own encoder is never run, and as small as can be."""
    decoder = network.config.decoder
    unused = ViTConfig(hidden_size=decoder.hidden_size, num_hidden_layers=1, num_attention_heads=1)
    model = VisionEncoderDecoderModel(VisionEncoderDecoderConfig.from_encoder_decoder_configs(unused, decoder))
    model.decoder.load_state_dict(network.decoder.state_dict())
    model.generation_config.update(
        decoder_start_token_id=decoder.bos_token_id,
        pad_token_id=decoder.pad_token_id,
        eos_token_id=decoder.eos_token_id,
    )
    return model.eval()


def measure(
    setting: Setting, device: str, budget: float, contenders: Sequence[str] = CONTENDERS
) -> dict[str, Any]:
    """Reports a second of each contender, and the shares of their time.

    Raises:
        RuntimeError: a contender writes other reports.
    """
    desk = Desk(setting, device)
    ways = desk.ways(contenders)
    expected = desk.ours()
    for name, write in ways.items():
        # In bf16 a beam may go another way.
        if name not in ("ours", "ours_bf16") and not torch.equal(write(), expected):
            raise RuntimeError(f"{name}: expected the reports that ours writes, got others")
    samplers = {name: Calls(write, device) for name, write in ways.items()}
    samplers["encoding"] = Calls(lambda: desk.encoded()[0], device)
    spreads = {name: Spread.of(list(chain(*rounds))) for name, rounds in interleave(samplers, budget).items()}
    return {
        "setting": asdict(setting),
        "beams": BEAMS,
        "seconds": {name: asdict(spread) for name, spread in spreads.items()},
        "processor_seconds": {name: asdict(Spread.of(calls.processor)) for name, calls in samplers.items()},
        "reports_per_second": {name: setting.studies / spreads[name].median for name in ways},
        "shares": desk.shares(contenders, device),
    }


def shares(write: Write, device: str) -> dict[str, float]:
    """The share of each kind of operation in the time of one call."""
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if device == "cuda" else [])
    with profile(activities=activities) as found:
        write()
    totals: dict[str, float] = dict.fromkeys([*KINDS, "other"], 0.0)
    for event in found.key_averages():
        kind = next((k for k, words in KINDS.items() if any(word in event.key for word in words)), "other")
        totals[kind] += event.self_device_time_total if device == "cuda" else event.self_cpu_time_total
    whole = sum(totals.values())
    return {kind: total / whole for kind, total in totals.items()}


def print_results(results: Sequence[dict[str, Any]]) -> None:
    """One row a batch size and contender."""
    rows = []
    for result in results:
        for name, rate in result["reports_per_second"].items():
            kinds = {kind: f"{100 * value:.0f} %" for kind, value in result["shares"].get(name, {}).items()}
            median = result["seconds"][name]["median"]
            studies = result["setting"]["studies"]
            rows.append(
                {"studies": studies, "contender": name, "reports/s": f"{rate:.2f}", "seconds": f"{median:.2f}", **kinds}
            )
    print(table(rows))


def main(arguments: Sequence[str]) -> int:
    """Measure what is asked for, print it, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--studies", nargs="+", type=int, default=[8, 16], help="batch sizes")
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    parser.add_argument("--tokens", type=int, help="of each report; default: the setting's")
    parser.add_argument("--seconds", type=float, default=120, help="to spend on a batch size, three rounds at least")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    parser.add_argument("--quick", action="store_true", help="tiny sizes")
    options = parser.parse_args(arguments)
    setting = SETTINGS["quick" if options.quick else "paper"]
    setting = replace(setting, tokens=options.tokens or setting.tokens)
    sizes = [setting.studies] if options.quick else options.studies
    results = [
        measure(replace(setting, studies=size), options.device, options.seconds, options.contenders) for size in sizes
    ]
    print_results(results)
    if options.output:
        text = json.dumps({"machine": describe(options.device), "results": results}, indent=1)
        options.output.write_text(text + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

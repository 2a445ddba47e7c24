"""`python bench/aggregation.py`: the aggregation module alone (Eq. 2-7), forward and backward, fused and reference.

Layers, width and heads of the preset `paper`, used as the network does: the image is projected once, and similar and
difference tokens attend to it. Both ways have the same weights and take turns. They must agree.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from limits import measured_limits
from machine import describe
from network import Backend
from parts import parts_of_aggregation, time_shares
from result import publish
from timing import CLOCKS, Spread, interleave, make_sampler
from torch import Tensor

from diffrgen.model import DiffRGenConfig
from diffrgen.model.fam import FlexiRouteAggregation

BACKENDS: dict[str, Backend] = {"fused": "auto", "reference": "reference"}
TOLERANCE = 1e-4  # of the largest gradient; float32


@dataclass(frozen=True)
class Block:
    """Studies a batch, token rows N a study, side of the patch grid."""

    studies: int
    rows: int
    side: int


BLOCKS = {
    "21_rows_49_patches": Block(16, 21, 7),
    "21_rows_1024_patches": Block(4, 21, 32),
    "1260_rows_1024_patches": Block(1, 1260, 32),
}
QUICK = {"quick": Block(2, 5, 3)}


class Module:
    """The aggregation module of one backend with its inputs."""

    def __init__(self, block: Block, backend: Backend, device: str) -> None:
        self.backend = backend
        torch.manual_seed(0)
        config = DiffRGenConfig(operator_backend=backend, dropout=0.0)
        self.fam = FlexiRouteAggregation(config).to(device).eval()  # no Gumbel noise: both ways route alike
        self.grid = (block.side, block.side)
        shape = (block.studies, block.rows, config.width)
        self.similar, self.difference = (torch.randn(shape, device=device, requires_grad=True) for _ in range(2))
        self.patches = torch.randn(block.studies, block.side**2, config.width, device=device, requires_grad=True)
        self.mask = torch.ones(block.studies, block.rows, dtype=torch.bool, device=device)
        self.gradients = [torch.randn_like(self.similar) for _ in range(2)]

    def step(self) -> tuple[Tensor, ...]:
        """Forward and backward; the gradients of both kinds of tokens and of the patches."""
        routes = self.fam.route(self.patches, self.grid, rows=2 * self.mask.shape[1])
        out = [self.fam(tokens, routes, self.mask) for tokens in (self.similar, self.difference)]
        inputs = [self.similar, self.difference, self.patches]
        return torch.autograd.grad(out, [*inputs, *self.fam.parameters()], self.gradients)[: len(inputs)]


def measure(block: Block, device: str, seconds: float, how: str = "clock") -> dict[str, Any]:
    """Seconds of both ways and their ratio; RuntimeError where their gradients disagree."""
    modules = {name: Module(block, backend, device) for name, backend in BACKENDS.items()}
    for mine, theirs in zip(*(module.step() for module in modules.values()), strict=True):
        error = ((mine - theirs).abs().max() / theirs.abs().max()).item()
        if error > TOLERANCE:
            raise RuntimeError(f"fused: expected the reference's gradients within {TOLERANCE}, got {error:.1e}")
    samplers = {name: make_sampler([module.step], device, how) for name, module in modules.items()}
    spreads = {name: Spread.of(list(chain(*rounds))) for name, rounds in interleave(samplers, seconds).items()}
    return {
        "block": asdict(block),
        "seconds": {name: asdict(spread) for name, spread in spreads.items()},
        "shares_of_time": {n: time_shares(parts_of_aggregation(m.fam), m.step, device) for n, m in modules.items()},
        "reference_over_fused": spreads["reference"].median / spreads["fused"].median,
    }


def main(arguments: Sequence[str]) -> int:
    """Measure, print, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--seconds", type=float, default=20, help="to spend on a block")
    parser.add_argument("--blocks", nargs="+", choices=BLOCKS, default=list(BLOCKS))
    parser.add_argument("--clock", choices=CLOCKS, default="clock", help="on a CPU: the wall's, or processor seconds")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    parser.add_argument("--quick", action="store_true", help="a tiny block")
    options = parser.parse_args(arguments)
    blocks = QUICK if options.quick else {name: BLOCKS[name] for name in options.blocks}
    found = {name: measure(block, options.device, options.seconds, options.clock) for name, block in blocks.items()}
    limit = measured_limits(options.device, torch.float32, options.clock).flops
    result = {"machine": describe(options.device), "clock": options.clock, "gemm_flops_per_second": limit, "blocks": found}
    publish(result, options.output)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

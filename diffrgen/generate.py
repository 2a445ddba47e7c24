"""`python -m diffrgen.generate RUN IMAGE...`: the report of each image, and what it is based on."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import tyro
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from diffrgen.command import run_command
from diffrgen.errors import DataError
from diffrgen.evaluation.reporter import Reporter
from diffrgen.evaluation.writer import WrittenReport
from diffrgen.pipeline.options import GenerationOptions

SHOWN_NEIGHBOURS = 3


@dataclass(frozen=True)
class GenerateOptions:
    """Write reports for X-ray images with a trained run."""

    run: tyro.conf.Positional[Path]
    """Run folder that diffrgen.train wrote, or the hub name owner/name[@revision] of a shared run."""
    images: tyro.conf.Positional[tuple[Path, ...]]
    """PNG or JPG files."""
    json: bool = False
    """Print one JSON object a line instead of text."""
    fused_kernels: bool = True
    """The fused operator; --no-fused-kernels runs the reference in PyTorch."""
    generation: GenerationOptions = field(default_factory=GenerationOptions)


def print_report(console: Console, image: Path, written: WrittenReport) -> None:
    """Print a report, the disease states, the nearest neighbours and the routing weights."""
    console.rule(f"[bold]{escape(str(image))}")
    console.print(written.report, highlight=False)
    table = Table("finding", "state", "P(positive)", title="disease states", title_justify="left")
    for finding, state in written.states.items():
        table.add_row(finding, state, f"{written.positive_probability[finding]:.2f}")
    console.print(table)
    for neighbour in written.neighbours[:SHOWN_NEIGHBOURS]:
        console.print(f"similar ({neighbour.similarity:.2f}), {neighbour.id}: {neighbour.report}", markup=False)
    for layer, weights in enumerate(written.routing, 1):
        masks = ", ".join(f"A^{order} {weight:.2f}" for order, weight in enumerate(weights))
        console.print(f"routing, layer {layer}: {masks}", markup=False, highlight=False)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write reports from the command line; return the exit status."""
    options = tyro.cli(GenerateOptions, args=arguments, prog="python -m diffrgen.generate")
    if not options.images:
        raise DataError("needed at least one image (PNG or JPG), got none")
    reports = Reporter(options.run, fused_kernels=options.fused_kernels).write(options.images, options.generation)
    console = Console()
    for image, written in zip(options.images, reports, strict=True):
        if options.json:
            print(json.dumps({"image": str(image), **written.to_dict()}, ensure_ascii=False))
        else:
            print_report(console, image, written)
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))

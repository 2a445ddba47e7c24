"""`python -m diffrgen.reinforce RUN --output NEW`: fine-tune a run on scores of its sampled reports."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import tyro

from diffrgen.command import quieten_libraries, run_command
from diffrgen.reinforcement.options import ReinforceOptions
from diffrgen.training.options import REINFORCED

PROGRAM = "python -m diffrgen.reinforce"


def parse_options(arguments: Sequence[str]) -> ReinforceOptions:
    """Parse the command line; with --resume unset options come from the run that is resumed."""
    first = argparse.ArgumentParser(PROGRAM, add_help=False, allow_abbrev=False)
    first.add_argument("--output", type=Path)
    first.add_argument("--resume", action="store_true")
    known, _ = first.parse_known_args(arguments)
    given: dict[str, Any] = {}
    if known.resume and known.output is not None and (known.output / REINFORCED).is_file():
        from diffrgen.pipeline.settings import load_json

        given["default"] = replace(load_json(ReinforceOptions, known.output / REINFORCED), max_steps=None)
    return tyro.cli(ReinforceOptions, args=arguments, prog=PROGRAM, **given)


def main(arguments: Sequence[str] | None = None) -> int:
    """Train from the command line; return the exit status."""
    options = parse_options(sys.argv[1:] if arguments is None else arguments)
    # After the options, so that --help does not wait for the network's libraries.
    from diffrgen.reinforcement.run import reinforce
    from diffrgen.sharing.card import card_message
    from diffrgen.training.interruption import TrainingStopped

    quieten_libraries()
    try:
        lineage = reinforce(options)
    except TrainingStopped as stopped:
        print(stopped, file=sys.stderr)
        return stopped.status
    print("\n".join(lineage.lines()))
    print(f"score it with: python -m diffrgen.evaluate {options.output} --shuffled-images")
    if (options.output / "train.json").is_file() and (options.output / "training.json").is_file():
        print(card_message(options.output))
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))

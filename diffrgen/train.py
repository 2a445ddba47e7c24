"""`python -m diffrgen.train`: fit the retriever, train, keep the best, evaluate."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import get_args

import tyro

from diffrgen.command import quieten_libraries, run_command
from diffrgen.training.options import CHECKPOINTS, Preset, TrainOptions
from diffrgen.training.presets import preset_options

PROGRAM = "python -m diffrgen.train"


def parse_options(arguments: Sequence[str]) -> TrainOptions:
    """Parse the command line; unset options come from the preset, with --resume from the run that is resumed, and with --init
    from the run that the training starts from.
    """
    first = argparse.ArgumentParser(PROGRAM, add_help=False, allow_abbrev=False)
    first.add_argument("--preset", choices=get_args(Preset))
    first.add_argument("--init")
    first.add_argument("--output", type=Path)
    first.add_argument("--resume", action="store_true")
    known, _ = first.parse_known_args(arguments)
    default = preset_options(known.preset or "tiny")
    stored = (known.output or default.output) / "train.json"
    if known.resume and stored.is_file():
        from diffrgen.pipeline.settings import load_json

        default = replace(load_json(TrainOptions, stored), max_steps=None)
    elif known.init is not None and Path(known.init).suffix not in CHECKPOINTS and not {"-h", "--help"} & set(arguments):
        return _parse_after_start(arguments, known.init, None if known.preset is None else default)
    return _parse(arguments, default)


def _parse_after_start(arguments: Sequence[str], init: str, base: TrainOptions | None) -> TrainOptions:
    """Parse the command line of a training from the run `init`; DataError for options that contradict that run."""
    from diffrgen.training.initialisation import read_start_options
    from diffrgen.training.start_options import check_agrees, defaults_after

    start = read_start_options(init)
    options = _parse(arguments, defaults_after(start, init, base=base))
    check_agrees(options, start)
    return options


def _parse(arguments: Sequence[str], default: TrainOptions) -> TrainOptions:
    return tyro.cli(TrainOptions, args=arguments, default=default, prog=PROGRAM)


def main(arguments: Sequence[str] | None = None) -> int:
    """Train from the command line; return the exit status."""
    options = parse_options(sys.argv[1:] if arguments is None else arguments)
    # After the options, so that --help does not wait for the network's libraries.
    from accelerate import PartialState

    from diffrgen.sharing.card import card_message
    from diffrgen.training.interruption import TrainingStopped
    from diffrgen.training.run import train

    quieten_libraries()
    try:
        summary, evaluation = train(options)
    except TrainingStopped as stopped:
        PartialState().print(stopped, file=sys.stderr)
        return stopped.status
    PartialState().print(
        f"trained {summary.steps} steps in {summary.seconds / 60:.1f} min, "
        f"best validation micro-F1 {summary.best_micro_f1:.3f}, peak memory {summary.peak_memory_gib:.1f} GiB"
    )
    if evaluation is not None:
        evaluation.print(title=f"{options.output}, test split")
        print(f"reports and scores: {evaluation.folder}")
    if PartialState().is_main_process:
        print(card_message(options.output))
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))

"""`python -m diffrgen.experiments STUDY`: re-run a study of the paper."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence

import tyro

from diffrgen.command import quieten_libraries, run_command
from diffrgen.experiments.options import ExperimentOptions


def parse_options(arguments: Sequence[str]) -> ExperimentOptions:
    """Parse the command line."""
    return tyro.cli(
        ExperimentOptions,
        args=arguments,
        prog="python -m diffrgen.experiments",
        config=(tyro.conf.PositionalRequiredArgs,),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a study from the command line; return the exit status."""
    options = parse_options(sys.argv[1:] if arguments is None else arguments)
    # After the options, so that --help does not wait for the network's libraries.
    from diffrgen.experiments.study import run_study

    quieten_libraries()
    # Like Ctrl-C: the trainings stop with a checkpoint.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    files = run_study(options)
    print(files.table.read_text(encoding="utf-8"))
    print(f"table: {files.table}, all figures: {files.results}, picture: {files.figure}; runs: {options.folder / 'runs'}")
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))

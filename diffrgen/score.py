"""`python -m diffrgen.score PREDICTIONS`: score the reports of a file, whichever system generated them."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import tyro
from rich.console import Console

from diffrgen.command import run_command
from diffrgen.evaluation.dump import ScoreOptions, score_predictions
from diffrgen.metrics import published_rows, terminal_table

PROGRAM = "python -m diffrgen.score"


def parse_options(arguments: Sequence[str]) -> ScoreOptions:
    """Parse the command line."""
    return tyro.cli(ScoreOptions, args=arguments, prog=PROGRAM, config=(tyro.conf.PositionalRequiredArgs,))


def main(arguments: Sequence[str] | None = None) -> int:
    """Score from the command line; return the exit status."""
    options = parse_options(sys.argv[1:] if arguments is None else arguments)
    scores = score_predictions(options)
    rows = {options.predictions.name: scores.table_row()}
    if options.published is not None:
        rows |= published_rows(options.published)
    title = f"protocol {options.protocol}; states read by {scores.labeler}"
    Console().print(terminal_table(rows, title=title))
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))

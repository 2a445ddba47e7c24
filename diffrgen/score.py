"""`python -m diffrgen.score PREDICTIONS`: score the reports of any system from a file."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import tyro

from diffrgen.command import quieten_libraries, run_command
from diffrgen.evaluation.options import ScoreOptions

PROGRAM = "python -m diffrgen.score"


def parse_options(arguments: Sequence[str]) -> ScoreOptions:
    """Parse the command line."""
    return tyro.cli(ScoreOptions, args=arguments, prog=PROGRAM, config=(tyro.conf.PositionalRequiredArgs,))


def main(arguments: Sequence[str] | None = None) -> int:
    """Score from the command line; return the exit status."""
    options = parse_options(sys.argv[1:] if arguments is None else arguments)
    # After the options, so that --help does not wait for the labelers' libraries.
    from rich.console import Console

    from diffrgen.evaluation.dump import compare_predictions, score_predictions
    from diffrgen.metrics import difference_terminal_table, published_rows, terminal_table

    quieten_libraries()
    comparison = None if options.against is None else compare_predictions(options)
    scores = {options.predictions.name: score_predictions(options)} if comparison is None else comparison.scores
    rows = {name: each.table_row() for name, each in scores.items()}
    if options.published is not None:
        rows |= published_rows(options.published)
    first, *others = scores
    title = f"protocol {options.protocol}; labeler: {scores[first].labeler}"
    Console().print(terminal_table(rows, title=title))
    if comparison is not None:
        Console().print(difference_terminal_table({others[0]: comparison.differences}, first=first))
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))

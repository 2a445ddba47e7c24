"""`python -m diffrgen.evaluate RUN`: write and score the reports of a split; `--predictions FILE`: score anyone's."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import tyro
from rich.console import Console

from diffrgen.command import run_command
from diffrgen.evaluation.dump import ScoreOptions, score_predictions
from diffrgen.evaluation.run import EvaluateOptions, evaluate
from diffrgen.metrics import published_rows, terminal_table
from diffrgen.sharing.card import CARD, card_message

PROGRAM = "python -m diffrgen.evaluate"
DUMP = "--predictions"


def main(arguments: Sequence[str] | None = None) -> int:
    """Evaluate from the command line; return the exit status."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if any(argument.split("=")[0] == DUMP for argument in arguments):
        return _score(tyro.cli(ScoreOptions, args=arguments, prog=PROGRAM))
    options = tyro.cli(
        EvaluateOptions,
        args=arguments,
        prog=PROGRAM,
        description=f"{EvaluateOptions.__doc__} Or score the reports of a file: {DUMP} FILE, see {DUMP} FILE --help.",
        config=(tyro.conf.PositionalRequiredArgs,),
    )
    evaluation = evaluate(options)
    evaluation.print(title=f"{options.run}, {options.split} split")
    print(f"reports and scores: {evaluation.folder}")
    # Training writes the first card; a run of the hub has its card there.
    if options.output is None and (options.run / CARD).is_file():
        print(card_message(options.run))
    return 0


def _score(options: ScoreOptions) -> int:
    scores = score_predictions(options)
    rows = {options.predictions.name: scores.table_row()}
    if options.published is not None:
        rows |= published_rows(options.published)
    title = f"protocol {options.protocol}; states read by {scores.labeler}"
    Console().print(terminal_table(rows, title=title))
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))

"""`python -m diffrgen.evaluate RUN`: generate and score the reports of a split; `--predictions FILE` is `diffrgen.score FILE`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import tyro

from diffrgen import score
from diffrgen.command import quieten_libraries, run_command
from diffrgen.evaluation.options import EvaluateOptions

PROGRAM = "python -m diffrgen.evaluate"
DUMP = "--predictions"


def main(arguments: Sequence[str] | None = None) -> int:
    """Evaluate from the command line; return the exit status."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    forwarded = _forwarded(arguments)
    if forwarded is not None:
        return score.main(forwarded)
    options = tyro.cli(
        EvaluateOptions,
        args=arguments,
        prog=PROGRAM,
        description=f"{EvaluateOptions.__doc__} {DUMP} FILE [...] is python -m diffrgen.score FILE [...].",
        config=(tyro.conf.PositionalRequiredArgs,),
    )
    # After the options, so that --help does not wait for the network's libraries.
    from diffrgen.evaluation.run import evaluate
    from diffrgen.sharing.card import CARD, card_message

    quieten_libraries()
    evaluation = evaluate(options)
    evaluation.print(title=f"{options.run}, {options.split} split")
    print(f"reports and scores: {evaluation.folder}")
    # Training writes the first card; a run of the hub has its card there.
    if options.output is None and (options.run / CARD).is_file():
        print(card_message(options.run))
    return 0


def _forwarded(arguments: Sequence[str]) -> list[str] | None:
    """Return the arguments of `diffrgen.score` where --predictions is given, else None."""
    first = argparse.ArgumentParser(PROGRAM, add_help=False, allow_abbrev=False)
    first.add_argument(DUMP)
    known, others = first.parse_known_args(arguments)
    return None if known.predictions is None else [known.predictions, *others]


if __name__ == "__main__":
    sys.exit(run_command(main))

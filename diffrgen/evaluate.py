"""`python -m diffrgen.evaluate RUN`: write and score the reports of a split."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import tyro

from diffrgen.command import run_command
from diffrgen.evaluation.run import EvaluateOptions, evaluate


def main(arguments: Sequence[str] | None = None) -> int:
    """Evaluate from the command line; return the exit status."""
    options = tyro.cli(
        EvaluateOptions, args=arguments, prog="python -m diffrgen.evaluate", config=(tyro.conf.PositionalRequiredArgs,)
    )
    evaluation = evaluate(options)
    evaluation.print(title=f"{options.run}, {options.split} split")
    print(f"reports and scores: {evaluation.folder}")
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))

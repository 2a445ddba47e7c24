"""`python -m diffrgen.index RUN --data annotation.json --output NEW`: a run with an index of other training reports."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import tyro

from diffrgen.command import run_command
from diffrgen.sharing.reindex import ReindexOptions, reindex


def parse_options(arguments: Sequence[str] | None = None) -> ReindexOptions:
    """Return the options that the command line names."""
    return tyro.cli(ReindexOptions, args=arguments, prog="python -m diffrgen.index")


def main(arguments: Sequence[str] | None = None) -> int:
    """Index from the command line; return the exit status."""
    options = parse_options(arguments)
    print(f"{options.output}: an index of {reindex(options):,} training studies")
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))

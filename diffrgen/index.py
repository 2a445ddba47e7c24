"""`python -m diffrgen.index RUN --data annotation.json --output NEW`: a run with an index of other training reports."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import tyro

from diffrgen.command import quieten_libraries, run_command
from diffrgen.sharing.options import ReindexOptions


def parse_options(arguments: Sequence[str] | None = None) -> ReindexOptions:
    """Return the options that the command line names."""
    return tyro.cli(ReindexOptions, args=arguments, prog="python -m diffrgen.index")


def main(arguments: Sequence[str] | None = None) -> int:
    """Index from the command line; return the exit status."""
    options = parse_options(arguments)
    # After the options, so that --help does not wait for the network's libraries.
    from diffrgen.sharing.reindex import reindex

    quieten_libraries()
    print(f"{options.output}: an index of {reindex(options):,} training studies")
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))

"""`python -m diffrgen.rexrank RUN --input-json F --save-json G --img-root D`: a report for every study of a ReXrank file."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import tyro

from diffrgen.command import quieten_libraries, run_command
from diffrgen.evaluation.options import ReXrankOptions


def parse_options(arguments: Sequence[str]) -> ReXrankOptions:
    """Parse the command line."""
    return tyro.cli(ReXrankOptions, args=arguments, prog="python -m diffrgen.rexrank")


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the reports from the command line; return the exit status."""
    options = parse_options(sys.argv[1:] if arguments is None else arguments)
    # After the options, so that --help does not wait for the network's libraries.
    from diffrgen.evaluation.rexrank import write_rexrank

    quieten_libraries()
    count = write_rexrank(options)
    print(f"{count} reports: {options.save_json}")
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))

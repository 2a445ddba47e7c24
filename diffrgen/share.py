"""`python -m diffrgen.share RUN OWNER/NAME`: upload a run to the Hugging Face hub."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import tyro

from diffrgen.command import run_command
from diffrgen.sharing.upload import ShareOptions, share


def parse_options(arguments: Sequence[str] | None = None) -> ShareOptions:
    """Return the options that the command line names."""
    return tyro.cli(
        ShareOptions, args=arguments, prog="python -m diffrgen.share", config=(tyro.conf.PositionalRequiredArgs,)
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Share from the command line; return the exit status."""
    options = parse_options(arguments)
    address = share(options)
    print(f"would be uploaded to {options.name}:\n{address}" if options.dry_run else f"shared: {address}")
    if options.without_reports:
        print(
            "left out: the retrieval index. Weights and vocabulary can repeat the reports that they were learned from: "
            "see whether the terms of the data allow sharing them"
        )
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))

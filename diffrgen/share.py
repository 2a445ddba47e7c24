"""`python -m diffrgen.share RUN OWNER/NAME`: upload a run to the Hugging Face hub."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import tyro

from diffrgen.command import quieten_libraries, run_command
from diffrgen.sharing.options import ShareOptions


def parse_options(arguments: Sequence[str] | None = None) -> ShareOptions:
    """Return the options that the command line names."""
    return tyro.cli(
        ShareOptions, args=arguments, prog="python -m diffrgen.share", config=(tyro.conf.PositionalRequiredArgs,)
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Share from the command line; return the exit status."""
    options = parse_options(arguments)
    # After the options, so that --help does not wait for the hub's and the network's libraries.
    from diffrgen.sharing.upload import share

    quieten_libraries()
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

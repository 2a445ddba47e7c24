"""`python -m diffrgen.mechanisms RUN`: which inputs a trained network uses."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import tyro

from diffrgen.command import quieten_libraries, run_command
from diffrgen.mechanisms.options import MechanismOptions


def parse_options(arguments: Sequence[str]) -> MechanismOptions:
    """Parse the command line."""
    return tyro.cli(
        MechanismOptions,
        args=arguments,
        prog="python -m diffrgen.mechanisms",
        config=(tyro.conf.PositionalRequiredArgs,),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure from the command line; return the exit status."""
    options = parse_options(sys.argv[1:] if arguments is None else arguments)
    # After the options, so that --help does not wait for the network's libraries.
    from rich.console import Console

    from diffrgen.mechanisms.measure import measure
    from diffrgen.mechanisms.table import mechanism_table
    from diffrgen.pipeline.settings import save_json
    from diffrgen.staging import check_new_file

    quieten_libraries()
    if options.output is not None:
        check_new_file(options.output)
    measured = measure(options)
    title = f"{options.run}, {measured['studies']} studies of {options.split}: loss increase in nats (standard error)"
    Console().print(mechanism_table(measured, title=title))
    if "localisation" in measured:
        found = measured["localisation"]
        print(f"findings seen in their place: {found['inside']:.2f}, by another study's attention {found['another']:.2f}")
    if options.output is not None:
        save_json(measured, options.output)
        print(f"all figures: {options.output}")
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))

"""`python -m diffrgen.serve RUN`: the web page of a trained run."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import tyro

from diffrgen.command import quieten_libraries, run_command
from diffrgen.serving import ServeOptions, serve


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until Ctrl-C; return the exit status."""
    options = tyro.cli(ServeOptions, args=arguments, prog="python -m diffrgen.serve")
    quieten_libraries()
    serve(options)
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))

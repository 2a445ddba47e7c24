"""`python -m diffrgen.serve RUN`: the web page of a trained run."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import tyro

from diffrgen.command import run_command
from diffrgen.serving import ServeOptions, serve


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until Ctrl-C; return the exit status."""
    serve(tyro.cli(ServeOptions, args=arguments, prog="python -m diffrgen.serve"))
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))

"""`python -m diffrgen.calibrate RUN`: calibrate the sentence probabilities of a run on its validation split."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import tyro

from diffrgen.command import quieten_libraries, run_command
from diffrgen.evaluation.options import CalibrateOptions

PROGRAM = "python -m diffrgen.calibrate"


def parse_options(arguments: Sequence[str]) -> CalibrateOptions:
    """Parse the command line."""
    return tyro.cli(CalibrateOptions, args=arguments, prog=PROGRAM, config=(tyro.conf.PositionalRequiredArgs,))


def main(arguments: Sequence[str] | None = None) -> int:
    """Calibrate from the command line; return the exit status."""
    options = parse_options(sys.argv[1:] if arguments is None else arguments)
    # After the options, so that --help does not wait for the network's libraries.
    from diffrgen.evaluation.calibrate import calibrate
    from diffrgen.reporting.calibration import FILE

    quieten_libraries()
    calibration, scores = calibrate(options)
    print(f"{options.run / FILE}: calibrated on {calibration.rated} sentences of {calibration.studies} studies ({options.split})")
    print(f"each half of the studies by the other half: {scores}")
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))

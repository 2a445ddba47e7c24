"""`python -m diffrgen.phantom`: write a phantom data set, or a contact sheet of one."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import tyro

from diffrgen.command import run_command
from diffrgen.errors import DataError
from diffrgen.phantom.options import PhantomOptions
from diffrgen.ranges import Count, check_fields
from diffrgen.staging import check_absent


@dataclass(frozen=True)
class Command:
    """Write a phantom data set to FOLDER, or an overview image of some of its studies."""

    folder: Path | None = None
    """Folder for the data set: annotation.json and images/."""
    contact_sheet: Path | None = None
    """New PNG file for an overview of captioned studies."""
    workers: Count | None = None
    """Processes that generate images; default: one per CPU."""
    options: PhantomOptions = field(default_factory=PhantomOptions)
    """The data set's options."""

    def __post_init__(self) -> None:
        check_fields(self, "--")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    command = tyro.cli(Command, args=arguments, prog="python -m diffrgen.phantom")
    if command.folder is None and command.contact_sheet is None:
        raise DataError("needed --folder, --contact-sheet or both, got none")
    if command.contact_sheet is not None:
        check_absent(command.contact_sheet)
    # After the options, so that --help does not wait for what draws.
    from diffrgen.phantom.sheet import write_contact_sheet
    from diffrgen.phantom.write import write_phantom

    if command.folder is not None:
        print(write_phantom(command.folder, command.options, workers=command.workers))
    if command.contact_sheet is not None:
        print(write_contact_sheet(command.contact_sheet, command.options))
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))

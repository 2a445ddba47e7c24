"""`python -m diffrgen.prepare mimic-cxr|iu-xray ARCHIVE OUT`: an annotation.json from what the archives ship."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import tyro

from diffrgen.command import run_command
from diffrgen.preparation import IuXrayOptions, MimicCxrOptions, Summary, prepare_iu_xray, prepare_mimic_cxr

Options = (
    Annotated[MimicCxrOptions, tyro.conf.subcommand("mimic-cxr", prefix_name=False)]
    | Annotated[IuXrayOptions, tyro.conf.subcommand("iu-xray", prefix_name=False)]
)


def parse_options(arguments: Sequence[str] | None = None) -> MimicCxrOptions | IuXrayOptions:
    """Return the options that the command line names: the data set first, then its folder and the new one."""
    return tyro.cli(
        Options, args=arguments, prog="python -m diffrgen.prepare", config=(tyro.conf.PositionalRequiredArgs,)
    )


def prepare(options: MimicCxrOptions | IuXrayOptions, *, progress: bool = False) -> Summary:
    """Make the annotation file that `options` describe; DataError where the archive cannot be used."""
    if isinstance(options, MimicCxrOptions):
        return prepare_mimic_cxr(options, progress=progress)
    return prepare_iu_xray(options, progress=progress)


def main(arguments: Sequence[str] | None = None) -> int:
    """Prepare from the command line; return the exit status."""
    options = parse_options(arguments)
    summary = prepare(options, progress=True)
    print(summary.to_text())
    images = summary.files.get("images")
    folder = "FOLDER" if images is None else options.archive / images
    print(f"written: {options.out / 'annotation.json'}, {options.out / 'summary.json'}")
    use = (
        "to train: python -m diffrgen.train"
        if summary.kept["train"].entries
        else "to evaluate: python -m diffrgen.evaluate RUN"
    )
    print(f"{use} --data {options.out / 'annotation.json'} --images {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))

"""`python -m diffrgen.prepare DATA-SET ARCHIVE OUT`: create an annotation.json from the archives of public collections."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, Any

import tyro

from diffrgen.command import run_command
from diffrgen.preparation import (
    ChexpertPlusOptions,
    IuXrayOptions,
    MimicCxrOptions,
    PadchestGrOptions,
    RexGradientOptions,
    ReXrankInputOptions,
    Summary,
    prepare_chexpert_plus,
    prepare_iu_xray,
    prepare_mimic_cxr,
    prepare_padchest_gr,
    prepare_rexgradient,
    prepare_rexrank,
)

PrepareOptions = (
    MimicCxrOptions
    | IuXrayOptions
    | ChexpertPlusOptions
    | RexGradientOptions
    | PadchestGrOptions
    | ReXrankInputOptions
)
Options = (
    Annotated[MimicCxrOptions, tyro.conf.subcommand("mimic-cxr", prefix_name=False)]
    | Annotated[IuXrayOptions, tyro.conf.subcommand("iu-xray", prefix_name=False)]
    | Annotated[ChexpertPlusOptions, tyro.conf.subcommand("chexpert-plus", prefix_name=False)]
    | Annotated[RexGradientOptions, tyro.conf.subcommand("rexgradient", prefix_name=False)]
    | Annotated[PadchestGrOptions, tyro.conf.subcommand("padchest-gr", prefix_name=False)]
    | Annotated[ReXrankInputOptions, tyro.conf.subcommand("rexrank", prefix_name=False)]
)
PREPARATIONS: Mapping[type, Callable[..., Summary]] = MappingProxyType(
    {
        MimicCxrOptions: prepare_mimic_cxr,
        IuXrayOptions: prepare_iu_xray,
        ChexpertPlusOptions: prepare_chexpert_plus,
        RexGradientOptions: prepare_rexgradient,
        PadchestGrOptions: prepare_padchest_gr,
        ReXrankInputOptions: prepare_rexrank,
    }
)


def parse_options(arguments: Sequence[str] | None = None) -> PrepareOptions:
    """Return the options that the command line names: the data set first, then its folder and the new one."""
    return tyro.cli(
        Options, args=arguments, prog="python -m diffrgen.prepare", config=(tyro.conf.PositionalRequiredArgs,)
    )


def prepare(options: PrepareOptions, *, progress: bool = False) -> Summary:
    """Make the annotation file that `options` describe; DataError if the archive cannot be used."""
    return PREPARATIONS[type(options)](options, progress=progress)


def main(arguments: Sequence[str] | None = None) -> int:
    """Prepare from the command line; return the exit status."""
    options = parse_options(arguments)
    summary = prepare(options, progress=True)
    print(summary.to_text())
    print(f"written: {options.out / 'annotation.json'}, {options.out / 'summary.json'}")
    use = (
        "to train: python -m diffrgen.train"
        if summary.kept["train"].entries
        else "to evaluate: python -m diffrgen.evaluate RUN"
    )
    print(f"{use} --data {options.out / 'annotation.json'} --images {_images_folder(options, summary)}")
    return 0


def _images_folder(options: Any, summary: Summary) -> object:
    """Return where the images of the annotation file are, FOLDER if unknown."""
    images = summary.files.get("images")
    if images is None:
        return "FOLDER"
    return (options.out if getattr(options, "unpack", False) else options.archive) / images


if __name__ == "__main__":
    sys.exit(run_command(main))

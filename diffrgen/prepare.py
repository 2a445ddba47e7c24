"""`python -m diffrgen.prepare DATA-SET ARCHIVE OUT`: create an annotation.json from the archives of public collections."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
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
from diffrgen.records import SPLITS

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
    """Make the annotation file that `options` describe; DataError where the archive cannot be used."""
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
    folder = _images_folder(options, summary)
    if folder is None:
        print("FOLDER in the next line: the folder that holds the images")
    print(f"{use} --data {options.out / 'annotation.json'} --images {folder or 'FOLDER'}")
    return 0


def _images_folder(options: Any, summary: Summary) -> Path | None:
    """Return the folder that the image paths of the annotation file start from; None where the first one is not found."""
    images = summary.files.get("images")
    if images is None:
        return None
    folder = Path(options.out if getattr(options, "unpack", False) else options.archive) / images
    records = json.loads((options.out / "annotation.json").read_text(encoding="utf-8"))
    named: str | list[str] = next((record["image_path"] for split in SPLITS for record in records[split]), [])
    first = [named] if isinstance(named, str) else named[:1]
    return folder if any((folder / image).is_file() for image in first) else None


if __name__ == "__main__":
    sys.exit(run_command(main))

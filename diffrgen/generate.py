"""`python -m diffrgen.generate RUN IMAGE...`: the report of each image, and what it is based on."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import tyro
from rich.console import Console
from tqdm import tqdm

from diffrgen.command import run_command
from diffrgen.errors import DataError
from diffrgen.explanation import ExplainedReport, Explainer
from diffrgen.images import collect_images
from diffrgen.page import PageFolder, print_report
from diffrgen.pipeline.options import GenerationOptions
from diffrgen.reporting.prior_study import read_prior
from diffrgen.reporting.reporter import Reporter
from diffrgen.text import printable

SOME_FAILED, ALL_FAILED = 1, 2


@dataclass(frozen=True)
class GenerateOptions:
    """Write reports for X-ray images with a trained run, and say why. Research use only, not for diagnosis.

    An image that cannot be read is named on standard error, and the others go on. Exit status: 0, 1 where some images
    failed, 2 where all did or the command could not start.
    """

    run: tyro.conf.Positional[Path]
    """Run folder that diffrgen.train wrote, or the hub name owner/name[@revision] of a shared run."""
    images: tyro.conf.Positional[tuple[Path, ...]]
    """PNG, JPG and DICOM files, folders of them, and quoted patterns such as "scans/**/*.dcm"."""
    json: bool = False
    """Print one JSON object a line instead of text: a report with its reasons, or {"image", "error"}."""
    html: Path | None = None
    """New or empty folder for a page with pictures for each study, and an index of several."""
    prior: tuple[Path, ...] = ()
    """The patient's earlier study, for one image: its image, its report as a .txt file, or both."""
    fused_kernels: bool = True
    """The fused operator; --no-fused-kernels runs the reference in PyTorch."""
    generation: GenerationOptions = field(default_factory=GenerationOptions)


class Outcomes:
    """What has become of each image: prints reports and errors in the order of the images, and counts."""

    def __init__(self, options: GenerateOptions, images: Sequence[Path], bar: tqdm) -> None:
        self.images, self.json, self.bar = images, options.json, bar
        self.console = Console()
        self.faults: dict[int, str] = {}
        self.done = 0

    def fail(self, position: int, error: DataError) -> None:
        """Name on standard error an image that cannot be read."""
        self.faults[position] = str(error)
        self.bar.write(f"error: {printable(str(error))}", file=sys.stderr)
        self.bar.update()

    def succeed(self, explained: ExplainedReport) -> None:
        """Print a report."""
        self.print_faults(before=explained.position)
        image = self.images[explained.position]
        with self._beside_the_bar():
            if self.json:
                print(json.dumps({"image": str(image), **explained.to_dict()}), flush=True)
            else:
                print_report(self.console, printable(str(image)), explained)
        self.done = explained.position + 1
        self.bar.update()

    def print_faults(self, *, before: int) -> None:
        """Print the JSON lines of the images that failed between the last report and position `before`."""
        if self.json:
            with self._beside_the_bar():
                for position in range(self.done, before):
                    print(error_line(self.images[position], self.faults[position]), flush=True)

    def _beside_the_bar(self) -> AbstractContextManager[None]:
        return nullcontext() if self.bar.disable else self.bar.external_write_mode(file=sys.stdout)


def error_line(image: Path, error: str) -> str:
    """Return the JSON line of an image that failed."""
    return json.dumps({"image": str(image), "error": error})


def generate(options: GenerateOptions) -> int:
    """Write, print and explain the reports; return the exit status."""
    if not options.images:
        raise DataError("needed at least one image (PNG, JPG or DICOM), folder or pattern, got none")
    found = collect_images(options.images)
    pages = PageFolder(options.html) if options.html else None
    for name, fault in found.faults.items():
        print(f"error: {printable(str(fault))}", file=sys.stderr)
        if options.json:
            print(error_line(name, str(fault)))
    if not found.files:
        return ALL_FAILED
    priors = None
    if options.prior:
        if len(found.files) != 1:
            raise DataError(f"--prior needs one image, whose patient it is of, got {len(found.files)}")
        priors = [read_prior(options.prior)]
    explainer = Explainer(Reporter(options.run, fused_kernels=options.fused_kernels))
    with tqdm(total=len(found.files), desc="writing reports", unit="image", disable=len(found.files) == 1) as bar:
        outcomes = Outcomes(options, found.files, bar)
        for explained in explainer.explain(found.files, options.generation, priors, unreadable=outcomes.fail):
            outcomes.succeed(explained)
            if pages:
                pages.write(explained, found.files[explained.position])
        outcomes.print_faults(before=len(found.files))
    faults = [*map(str, found.faults.values()), *outcomes.faults.values()]
    if pages:
        index = pages.write_index(faults)
        print(f"pages: {index or pages.path}", file=sys.stderr)
    if len(outcomes.faults) == len(found.files):
        return ALL_FAILED
    return SOME_FAILED if faults else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Write reports from the command line; return the exit status."""
    return generate(tyro.cli(GenerateOptions, args=arguments, prog="python -m diffrgen.generate"))


if __name__ == "__main__":
    sys.exit(run_command(main))

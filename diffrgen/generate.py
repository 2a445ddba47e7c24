"""`python -m diffrgen.generate RUN IMAGE...`: the report of each image, with its explanation."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from diffrgen.command import quieten_libraries, run_command
from diffrgen.errors import DataError
from diffrgen.pipeline.options import GenerationOptions
from diffrgen.ranges import Share, check_fields
from diffrgen.text import printable

# Imported by the functions that need them: neither --help nor an import of this module waits for the network's libraries.
if TYPE_CHECKING:
    from tqdm import tqdm

    from diffrgen.clinical import ClinicalFiles, DraftReport
    from diffrgen.explanation import ExplainedReport
    from diffrgen.records import Sections
    from diffrgen.reporting.study_files import StudyCollection
    from diffrgen.reporting.study_images import StudyImages

SOME_FAILED, ALL_FAILED = 1, 2


@dataclass(frozen=True)
class GenerateOptions:
    """Generate reports for X-ray images with a trained run, and explain them. Research use only, not for diagnosis.

    Each image gets a separate report; --study names images that are views of one study. The name of an unreadable image
    is printed on standard error, and the command continues. Exit status: 0; 1 if some images failed; 2 if all failed or
    the command could not start.
    """

    run: tyro.conf.Positional[Path]
    """Run folder of diffrgen.train, or the hub name owner/name[@revision] of a shared run."""
    images: tyro.conf.Positional[tuple[Path, ...]] = ()
    """PNG, JPG and DICOM files, folders of them, and quoted patterns such as "scans/**/*.dcm"."""
    study: tuple[Path, ...] = ()
    """Images of one study, at most 4, such as frontal.png lateral.png; or folders. Each folder and subfolder is one
    study; DICOM files are grouped by study. Requires a run trained on studies with several images."""
    json: bool = False
    """Print one JSON object per line instead of text: a report with its explanation, or {"image", "error"}; "images"
    lists all images of a study."""
    html: Path | None = None
    """New or empty folder for an illustrated page per study, with an index if there are several. Images with apparent
    burned-in text are listed on standard error: check them before sharing a page."""
    dicom_sr: Path | None = None
    """New or empty folder for reports as DICOM Basic Text SR: unverified drafts with the patient and study tags of
    their DICOM images (CR, DX or RG); pip install "diffrgen[clinical]". Without this option and --fhir no tag leaves a
    file."""
    fhir: Path | None = None
    """New file for the reports as FHIR R4 DiagnosticReports (preliminary), as a Bundle if there are several. Requires
    the same DICOM images as --dicom-sr."""
    prior: tuple[Path, ...] = ()
    """The patient's prior study, for one image or study: its image, its report as a .txt file, or both."""
    indication: str | None = None
    """Indication of one image or study. Requires a run trained with --model.context indication."""
    history: str | None = None
    """The patient's history, for one image or study. Requires a run trained with --model.context history."""
    abstain: Share | None = None
    """Mark sentences with a probability below this value (0 to 1) as doubtful in text, JSON, pages, DICOM SR and FHIR;
    none is removed. Requires a run calibrated with diffrgen.calibrate."""
    fused_kernels: bool = True
    """Use the fused operator; --no-fused-kernels uses the PyTorch reference."""
    generation: GenerationOptions = field(default_factory=GenerationOptions)

    def __post_init__(self) -> None:
        check_fields(self, "--")


class Outcomes:
    """Prints reports and errors in the order of the studies, and counts them."""

    def __init__(self, options: GenerateOptions, studies: Sequence[StudyImages], bar: tqdm) -> None:
        self.studies, self.json, self.abstain, self.bar = studies, options.json, options.abstain, bar
        self.faults: dict[int, str] = {}
        self.done = 0

    def fail(self, position: int, error: DataError) -> None:
        """Name on standard error a study that cannot be read."""
        self.faults[position] = str(error)
        self.bar.write(f"error: {printable(str(error))}", file=sys.stderr)
        self.bar.update()

    def succeed(self, explained: ExplainedReport) -> None:
        """Print a report."""
        from rich.console import Console

        from diffrgen.page import print_report

        self.print_faults(before=explained.position)
        study = self.studies[explained.position]
        with self._beside_the_bar():
            if self.json:
                print(json.dumps({**_names(study), **_marked(explained, self.abstain)}), flush=True)
            else:
                print_report(Console(), printable(study.name), explained, abstain=self.abstain)
        self.done = explained.position + 1
        self.bar.update()

    def print_faults(self, *, before: int) -> None:
        """Print the JSON lines of the studies that failed between the last report and position `before`."""
        if self.json:
            with self._beside_the_bar():
                for position in range(self.done, before):
                    print(error_line(_names(self.studies[position]), self.faults[position]), flush=True)

    def _beside_the_bar(self) -> AbstractContextManager[None]:
        return nullcontext() if self.bar.disable else self.bar.external_write_mode(file=sys.stdout)


def error_line(names: Mapping[str, object], error: str) -> str:
    """Return the JSON line of a study that failed; names: see `_names`."""
    return json.dumps({**names, "error": error})


def _marked(explained: ExplainedReport, abstain: float | None) -> dict[str, object]:
    """Return a report's JSON; with `abstain` each entry of its "confidence" marks doubtful sentences."""
    content = explained.to_dict()
    if abstain is None:
        return content
    rated = [{**asdict(one), "doubtful": one.doubtful(abstain)} for one in explained.written.confidence or ()]
    return {**content, "confidence": rated, "abstain": abstain}


def _names(study: StudyImages) -> dict[str, object]:
    """Return the first image of a study, and all of several, for JSON."""
    images = [str(image) for image in study.images]
    return {"image": images[0]} if len(images) == 1 else {"image": images[0], "images": images}


def _found(options: GenerateOptions) -> StudyCollection:
    """Return the studies that the command names: each image one, or those of --study."""
    if not options.images and not options.study:
        raise DataError("needed at least one image (PNG, JPG or DICOM), folder or pattern, or --study, got none")
    if options.images and options.study:
        raise DataError("needed either IMAGES or --study, got both")
    from diffrgen.images import collect_images
    from diffrgen.reporting.study_files import StudyCollection, collect_studies
    from diffrgen.reporting.study_images import StudyImages

    if options.study:
        return collect_studies(options.study)
    found = collect_images(options.images)
    return StudyCollection([StudyImages.of(file) for file in found.files], found.faults)


def _clinical_files(options: GenerateOptions, studies: Sequence[StudyImages]) -> ClinicalFiles | None:
    """Return the exporter of DICOM SR and FHIR, None if not requested; DataError for unsuitable images."""
    if options.dicom_sr is None and options.fhir is None:
        return None
    from diffrgen.clinical import ClinicalFiles, check_patients, read_study, run_origin

    sources = [read_study(study.files) for study in studies]
    check_patients(source for images in sources for source in images)
    return ClinicalFiles(options.dicom_sr, options.fhir, sources, run_origin(options.run))


def _draft(explained: ExplainedReport, abstain: float | None) -> DraftReport:
    """Return a report as it is exported."""
    from diffrgen.clinical import DraftReport

    probabilities = [None if rated is None else rated.probability for rated in explained.confidence]
    texts = [sentence.text for sentence in explained.sentences]
    sections = [sentence.section for sentence in explained.sentences]
    left_out = explained.written.not_mentioned or ()
    return DraftReport.rated(texts, probabilities, left_out, sections=sections, abstain=abstain)


def _context(options: GenerateOptions, studies: int) -> list[Sections] | None:
    """Return what is known of the one study, None if nothing is; DataError for several studies or a text without a word."""
    from diffrgen.records import Sections
    from diffrgen.records.entry import is_empty_report

    given = {name: text for name in ("indication", "history") if (text := getattr(options, name)) is not None}
    if not given:
        return None
    empty = next((name for name, text in given.items() if is_empty_report(text)), None)
    if empty is not None:
        raise DataError(f"--{empty} requires a text with a word, got {given[empty]!r}; leave the option out")
    if studies != 1:
        raise DataError(f"--indication and --history require one image or study, got {studies}")
    return [Sections(**given)]


def _warn_of_text(study: StudyImages, bar: tqdm) -> None:
    """Name on standard error the images of a study that may have text burned in."""
    from diffrgen.images import read_grey
    from diffrgen.images.burned_text import SIDE, find_text, text_warning

    for image in study.images:
        warning = text_warning(find_text(read_grey(Path(str(image)), at_least=SIDE)))
        if warning is not None:
            bar.write(f"warning: {printable(str(image))}: {warning}", file=sys.stderr)


def generate(options: GenerateOptions) -> int:
    """Write, print and explain the reports; return the exit status."""
    from tqdm import tqdm

    from diffrgen.explanation import Explainer
    from diffrgen.page import PageFolder
    from diffrgen.reporting.prior_study import read_prior
    from diffrgen.reporting.reporter import Reporter

    quieten_libraries()
    found = _found(options)
    pages = PageFolder(options.html, abstain=options.abstain) if options.html else None
    for name, fault in found.faults.items():
        print(f"error: {printable(str(fault))}", file=sys.stderr)
        if options.json:
            print(error_line({"image": str(name)}, str(fault)))
    studies = found.studies
    if not studies:
        return ALL_FAILED
    priors = None
    if options.prior:
        if len(studies) != 1:
            raise DataError(f"--prior requires one image or study, got {len(studies)}")
        priors = [read_prior(options.prior)]
    context = _context(options, len(studies))
    clinical = _clinical_files(options, studies)
    reporter = Reporter(options.run, fused_kernels=options.fused_kernels)
    if options.abstain is not None and reporter.calibration is None:
        raise DataError(
            f"--abstain requires a calibrated run; calibrate this run with: python -m diffrgen.calibrate {options.run}"
        )
    explainer = Explainer(reporter)
    with tqdm(total=len(studies), desc="writing reports", unit="study", disable=len(studies) == 1) as bar:
        outcomes = Outcomes(options, studies, bar)
        reports = explainer.explain(
            studies, options.generation, priors, context=context, unreadable=outcomes.fail
        )
        for explained in reports:
            outcomes.succeed(explained)
            if clinical:
                clinical.write(explained.position, _draft(explained, options.abstain))
            if pages:
                pages.write(explained, *studies[explained.position].files)
                _warn_of_text(studies[explained.position], bar)
        outcomes.print_faults(before=len(studies))
    if clinical:
        clinical.finish()
    faults = [*map(str, found.faults.values()), *outcomes.faults.values()]
    if pages:
        index = pages.write_index(faults)
        print(f"pages: {index or pages.path}", file=sys.stderr)
    if len(outcomes.faults) == len(studies):
        return ALL_FAILED
    return SOME_FAILED if faults else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Write reports from the command line; return the exit status."""
    return generate(tyro.cli(GenerateOptions, args=arguments, prog="python -m diffrgen.generate"))


if __name__ == "__main__":
    sys.exit(run_command(main))

"""The inputs of an evaluation, opened and checked: a run, a split, reports of other systems, human labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from diffrgen.errors import DataError
from diffrgen.evaluation.contenders import contender_files, read_contenders
from diffrgen.evaluation.human_labels import HumanLabels, read_human_labels
from diffrgen.evaluation.options import EvaluateOptions
from diffrgen.evaluation.result import CONTEXT_ROW, MARKS_ROW, MODEL_ROW, SHUFFLED_ROW, UNMARKED_ROW
from diffrgen.evaluation.scoring import BASELINES
from diffrgen.evaluation.split import SplitChoice, check_may_write, load_split
from diffrgen.model import DiffRGenForReportGeneration
from diffrgen.pipeline.dataset import StudyDataset
from diffrgen.pipeline.generation import Decoding
from diffrgen.pipeline.labeler import NamedLabeler, run_labeler
from diffrgen.pipeline.run_folder import RunFolder
from diffrgen.pipeline.run_settings import RunSettings
from diffrgen.pipeline.source import StudySource
from diffrgen.records import Study
from diffrgen.reporting.calibration import ConfidenceCalibration, read_calibration
from diffrgen.reporting.writer import run_decoding

OWN_ROWS = (MODEL_ROW, SHUFFLED_ROW, CONTEXT_ROW, MARKS_ROW, UNMARKED_ROW)


@dataclass(frozen=True)
class Subject:
    """What is evaluated: the run and its network, the examples of the split, other systems' reports and human labels.

    options: as given, with the run's decoding options where unset. decoding: of the model's own row. labeler: the run's, which
    selects among candidates; the labeler of `source` scores the reports. contenders: other systems' reports, by row name.
    """

    options: EvaluateOptions
    run: RunFolder
    settings: RunSettings
    model: DiffRGenForReportGeneration
    decoding: Decoding
    calibration: ConfidenceCalibration | None
    labeler: NamedLabeler
    choice: SplitChoice
    source: StudySource
    dataset: StudyDataset
    contenders: Mapping[str, Sequence[str]]
    human: HumanLabels | None

    @property
    def studies(self) -> tuple[Study, ...]:
        """The studies of the split."""
        return self.dataset.studies

    @property
    def references(self) -> list[str]:
        """The reference report of each study."""
        return [study.report for study in self.studies]

    @property
    def prior(self) -> bool:
        """Whether the network is given the patients' prior studies."""
        return self.dataset.priors is not None


def open_subject(options: EvaluateOptions) -> Subject:
    """Open and check all that the options name, so that nothing is generated that could not be scored.

    Raises DataError for a folder that is no run, a split without studies, unusable data, and options that do not fit the run.
    """
    run = RunFolder.open(options.run)
    settings = run.settings()
    options = replace(options, generation=options.generation.over(settings.generation))
    _check_output(options, run)
    files = contender_files(options.contender, taken=(*OWN_ROWS, *BASELINES))
    human = None if options.human_labels is None else read_human_labels(options.human_labels)
    model = run.model(fused_kernels=options.fused_kernels)
    if options.shuffled_context and not model.config.context:
        raise DataError(f"{run.path}: needed a run that was trained with --model.context for --shuffled-context, got none")
    # Limits that this run cannot meet are rejected before any data are read.
    decoding = run_decoding(model, options.generation, max_tokens=settings.max_tokens)
    calibration, labeler = read_calibration(run), run_labeler(settings.labeler)
    if calibration is not None:
        calibration.warn_of(decoding)
    choice = SplitChoice(
        *(options.split, options.data, options.images, options.skip_broken),
        labeler=options.labeler,
        decoded=options.decoded,
    )
    source, studies = load_split(run, settings, model.config, choice)
    ids = [study.id for study in studies]
    contenders = read_contenders(files, ids)
    if human is not None:
        human.matrix(ids)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model.to(device)
    dataset = run.dataset(model.config, settings, source, studies, key=choice.key, priors=options.priors, device=device)
    return Subject(
        *(options, run, settings, model, decoding, calibration, labeler, choice, source, dataset),
        contenders=contenders,
        human=human,
    )


def _check_output(options: EvaluateOptions, run: RunFolder) -> None:
    if options.output is not None and options.output.exists() and any(options.output.iterdir()):
        raise DataError(f"{options.output}: needed a new or empty folder, got one that holds files; choose another")
    check_may_write(options.output or run.evaluation_path)

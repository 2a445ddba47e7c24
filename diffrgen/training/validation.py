"""The validation after each epoch: losses, P(positive) for Eq. 9's prior, the clinical score of generated reports."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from diffrgen.evaluation.scoring import finding_scores
from diffrgen.labels import DISEASES, Labeler
from diffrgen.model import DiffRGenForReportGeneration, StudyInputs
from diffrgen.model.disease import positive_probability
from diffrgen.pipeline.dataset import Example, StudyDataset, example_loader
from diffrgen.pipeline.options import GenerationOptions
from diffrgen.reporting.writer import write_reports
from diffrgen.training.calibration import PromptCalibration, calibrate_prompts, thresholds_at

T = TypeVar("T")
LOSSES = ("loss", "language_loss", "disease_loss", "contrast_loss")


@dataclass(frozen=True)
class Validation:
    """Scores by name for the log: mean losses, and micro-F1 of generated reports; P(positive) of each study (n, C)."""

    scores: dict[str, float]
    positive_probability: Tensor


@dataclass(frozen=True)
class MeasuredBatch:
    """The mean losses of a batch in the order of LOSSES, and P(positive) of its studies (B, C)."""

    losses: tuple[float, ...]
    positive: Tensor


def own_batches(count: int, *, batch_size: int, process: int, processes: int) -> list[range]:
    """Return the rows of the batches, out of those of `count` studies, that one of several processes measures.

    The batches are those of a single process, dealt out in turn. Each process gets equally many, for a sharded network
    needs all of them at every batch: where they do not come out even, the first batch is measured again.
    """
    batches = [range(first, min(first + batch_size, count)) for first in range(0, count, batch_size)]
    rounds = -(-len(batches) // processes)
    return (batches + batches[:1] * (rounds * processes - len(batches)))[process::processes]


def from_all_processes(rows: Sequence[int], values: Iterable[T]) -> list[T]:
    """Return the values that all processes found for their `rows`, in the order of the rows and each row once."""
    found = dict(gather_object(list(zip(rows, values, strict=True))))
    return [found[row] for row in sorted(found)]


@torch.no_grad()
def validation_losses(
    model: DiffRGenForReportGeneration, dataset: StudyDataset, *, batch_size: int, workers: int = 0
) -> tuple[dict[str, float], Tensor]:
    """Return the mean of each loss over `dataset` and P(positive) of each study and disease (n, C).

    Every process computes its share and returns the whole.
    """
    model.eval()
    batches = _batches(len(dataset), batch_size)
    mine = _measure(model, dataset, batches, batch_size, workers)
    measured = from_all_processes([rows.start for rows in batches], mine)
    totals = dict.fromkeys(LOSSES, 0.0)
    for batch in measured:
        for name, loss in zip(LOSSES, batch.losses, strict=True):
            totals[name] += loss * len(batch.positive)
    return {name: total / len(dataset) for name, total in totals.items()}, torch.cat([b.positive for b in measured])


def set_thresholds(
    model: DiffRGenForReportGeneration,
    dataset: StudyDataset,
    positive: Tensor,
    frequency: Tensor,
    *,
    batch_size: int,
    workers: int = 0,
) -> PromptCalibration:
    """Set the thresholds of the prompts in the model's config, and return how they were chosen.

    positive: P(positive) (n, C) of `dataset`; frequency: (C,) in training. A network for several views gets thresholds for
    studies of one view too, which let the same share of these through.
    """
    calibration = calibrate_prompts(positive, dataset.states, frequency)
    model.config.prompt_thresholds = calibration.thresholds
    if model.config.views > 1:
        single = single_view_probability(model, dataset, batch_size=batch_size, workers=workers)
        model.config.single_view_thresholds = thresholds_at(calibration.rate, single, frequency)
    return calibration


@torch.no_grad()
def single_view_probability(
    model: DiffRGenForReportGeneration, dataset: StudyDataset, *, batch_size: int, workers: int = 0
) -> Tensor:
    """Return P(positive) of each study and disease (n, C) where one view of each study is shown; every process, the whole.

    NOTE: the retrieved reports remain those found with all views.
    """
    model.eval()
    batches = _batches(len(dataset), batch_size)
    with dataset.one_view():
        positive = [
            positive_probability(model.encode(StudyInputs.of(batch).to(model.device)).disease_logits).cpu()
            for batch in _loader(dataset, batches, batch_size, workers)
        ]
    return torch.cat(from_all_processes([rows.start for rows in batches], positive))


def _batches(count: int, batch_size: int) -> list[range]:
    state = PartialState()
    return own_batches(count, batch_size=batch_size, process=state.process_index, processes=state.num_processes)


def _loader(dataset: StudyDataset, batches: Sequence[range], batch_size: int, workers: int) -> DataLoader[Example]:
    """Return a loader of these batches, in their order."""
    rows = [row for batch in batches for row in batch]
    return example_loader(Subset(dataset, rows), batch_size=batch_size, workers=workers)


def _measure(
    model: DiffRGenForReportGeneration, dataset: StudyDataset, batches: Sequence[range], batch_size: int, workers: int
) -> Iterator[MeasuredBatch]:
    for batch in _loader(dataset, batches, batch_size, workers):
        output = model(**{name: tensor.to(model.device) for name, tensor in batch.items()})
        positive = positive_probability(output.disease_logits).cpu()
        yield MeasuredBatch(tuple(output[name].item() for name in LOSSES), positive)


def validate(
    model: DiffRGenForReportGeneration,
    dataset: StudyDataset,
    labeler: Labeler,
    *,
    batch_size: int,
    studies: int,
    workers: int = 0,
    progress: bool = True,
    calibrated_to: Tensor | None = None,
) -> Validation:
    """Measure the losses of `dataset`, and the micro-F1 (13 findings) of greedy reports for its first `studies`.

    calibrated_to: the training frequencies (C,) that the thresholds of the prompts are set by first, in the model's config,
    also those for a single view; None: the config stays as it is. Every process does its share and returns the same.
    """
    losses, positive = validation_losses(model, dataset, batch_size=batch_size, workers=workers)
    if calibrated_to is not None:
        calibration = set_thresholds(model, dataset, positive, calibrated_to, batch_size=batch_size, workers=workers)
        losses |= {"prompt_micro_f1": calibration.micro_f1, "prompt_rate": calibration.rate}
    count = min(studies, len(dataset))
    rows = [row for batch in _batches(count, batch_size) for row in batch]
    greedy = GenerationOptions(beams=1, batch_size=batch_size)
    written = write_reports(model, dataset, greedy, rows=rows, workers=workers, progress=progress)
    reported = labeler([w.report for w in written])
    states = np.array(from_all_processes(rows, reported), dtype=reported.dtype).reshape(count, reported.shape[1])
    scores = finding_scores(states, dataset.states[range(count)].numpy(), DISEASES)
    return Validation({**losses, "micro_f1": scores.micro.f1 or 0.0}, positive)

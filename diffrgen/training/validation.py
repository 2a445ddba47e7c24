"""What is measured after each epoch: losses, P(positive) for Eq. 9's prior, the clinical score of written reports."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from diffrgen.evaluation.scoring import finding_scores
from diffrgen.evaluation.writer import write_reports
from diffrgen.labels import DISEASES, Labeler, State
from diffrgen.model import DiffRGenForReportGeneration
from diffrgen.pipeline.dataset import StudyDataset, example_loader
from diffrgen.pipeline.options import GenerationOptions

LOSSES = ("loss", "language_loss", "disease_loss", "contrast_loss")


@dataclass(frozen=True)
class Validation:
    """Scores by name for the log: mean losses, and micro-F1 of written reports; P(positive) of each study (n, C)."""

    scores: dict[str, float]
    positive_probability: Tensor


@torch.no_grad()
def validation_losses(
    model: DiffRGenForReportGeneration, dataset: StudyDataset, *, batch_size: int, workers: int = 0
) -> tuple[dict[str, float], Tensor]:
    """Return the mean of each loss over `dataset` and P(positive) of each study and disease (n, C)."""
    model.eval()
    totals, positive = dict.fromkeys(LOSSES, 0.0), []
    for batch in example_loader(dataset, batch_size=batch_size, workers=workers):
        output = model(**{name: tensor.to(model.device) for name, tensor in batch.items()})
        for name in LOSSES:
            totals[name] += output[name].item() * len(batch["states"])
        positive.append(output.disease_logits.float().softmax(1)[:, State.POSITIVE].cpu())
    return {name: total / len(dataset) for name, total in totals.items()}, torch.cat(positive)


def validate(
    model: DiffRGenForReportGeneration,
    dataset: StudyDataset,
    labeler: Labeler,
    *,
    batch_size: int,
    studies: int,
    workers: int = 0,
    progress: bool = True,
) -> Validation:
    """Measure the losses of `dataset`, and the micro-F1 (13 findings) of greedy reports for its first `studies`."""
    losses, positive = validation_losses(model, dataset, batch_size=batch_size, workers=workers)
    rows = range(min(studies, len(dataset)))
    greedy = GenerationOptions(beams=1, batch_size=batch_size)
    written = write_reports(model, dataset, greedy, rows=rows, workers=workers, progress=progress)
    said = labeler([w.report for w in written])
    scores = finding_scores(said, dataset.states[rows].numpy(), DISEASES)
    return Validation({**losses, "micro_f1": scores.micro.f1 or 0.0}, positive)

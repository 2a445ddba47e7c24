"""What a trained network uses: how much worse it gets when one part is that of another study, or the routing even.

    python bench/mechanisms.py RUN --output mechanisms.json

Language loss: nats a token of the reference after the prompt of the true states; disease loss: nats a finding, without
Eq. 9's prior. Both are of each study, and differences are paired by study. A part whose exchange changes nothing is not used.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
import torch.nn.functional as F
import tyro
from machine import describe
from result import publish
from torch import Tensor

from diffrgen.errors import DataError
from diffrgen.metrics.bootstrap import mean_interval
from diffrgen.model import DiffRGenForReportGeneration, StudyInputs
from diffrgen.model.fam import FlexiRouteAggregation
from diffrgen.model.language import IGNORED
from diffrgen.model.outputs import EncodedStudy
from diffrgen.model.router import Router
from diffrgen.pipeline.dataset import Example, StudyDataset, example_loader
from diffrgen.pipeline.run_folder import RunFolder
from diffrgen.pipeline.source import load_source
from diffrgen.records import Split

Encode = Callable[[DiffRGenForReportGeneration, Example], EncodedStudy]
OTHER_D = "another's D in the memory"


@dataclass(frozen=True)
class Command:
    """Measure what a trained network uses, on a split of its data."""

    run: tyro.conf.Positional[Path]
    """The folder of a run."""
    batch_size: int = 32
    """Studies at a time; each gets parts of the study half a batch away."""
    split: Split = "test"
    """The studies to measure it on."""
    output: Path | None = None
    """File for all figures as JSON."""


def exchanged(rows: Tensor) -> Tensor:
    """Each row in another's place, half the batch away: those of one patient stand side by side."""
    return rows.roll(len(rows) // 2, 0)


def encode(model: DiffRGenForReportGeneration, example: Example, *other: str) -> EncodedStudy:
    """Encode a batch, the inputs `other` being those of other studies."""
    inputs = StudyInputs.of(example)
    given = inputs.tensors()
    return model.encode(replace(inputs, **{name: exchanged(given[name]) for name in other if name in given}))


def with_other_rows(part: int) -> Encode:
    """Encode with other studies' rows in a part of the decoder's memory: 0 patches, 1 S, 2 D."""

    def encode_and_exchange(model: DiffRGenForReportGeneration, example: Example) -> EncodedStudy:
        encoded = encode(model, example)
        gh, gw = model.image_encoder.grid(*example["pixel_values"].shape[-2:])
        views = example["pixel_values"].shape[1] if example["pixel_values"].dim() == 5 else 1
        patches, rows = views * gh * gw, encoded.last_hidden_state.shape[1]
        parts = 1 if model.difference is None else 2
        bounds = [0, *(patches + (rows - patches) * k // parts for k in range(parts + 1))]
        for memory in (encoded.last_hidden_state, encoded.memory_mask):
            taken = memory[:, bounds[part] : bounds[part + 1]]
            taken.copy_(exchanged(taken))
        return encoded

    return encode_and_exchange


def with_other_co_attention(model: DiffRGenForReportGeneration, example: Example) -> EncodedStudy:
    """Encode with other studies' patches as F of Eq. 2: the keys, values and routing weights of all layers."""
    route = FlexiRouteAggregation.route
    with patch.object(FlexiRouteAggregation, "route", lambda fam, f, *given: route(fam, exchanged(f), *given)):
        return encode(model, example)


def with_routing(change: Callable[[Tensor], Tensor]) -> Encode:
    """Encode with changed routing weights alpha (B, P)."""

    def encode_routed(model: DiffRGenForReportGeneration, example: Example) -> EncodedStudy:
        forward = Router.forward
        with patch.object(Router, "forward", lambda router, *given: change(forward(router, *given))):
            return encode(model, example)

    return encode_routed


def all_ones_alone(alpha: Tensor) -> Tensor:
    """All weight on A^0, which masks nothing."""
    alone = torch.zeros_like(alpha)
    alone[:, 0] = 1
    return alone


VIEWS = ("pixel_values", "view_mask", "view_kinds")
# What is changed, and how a batch is encoded then.
CHANGES: dict[str, Encode] = {
    "nothing": encode,
    "another's image": lambda model, example: encode(model, example, *VIEWS),
    "another's retrieved reports": lambda model, example: encode(model, example, "retrieved", "retrieved_mask"),
    "another's patches in the memory": with_other_rows(0),
    "another's S in the memory": with_other_rows(1),
    OTHER_D: with_other_rows(2),
    "another's patches in the co-attention": with_other_co_attention,
    "another's routing": with_routing(exchanged),
    "even routing": with_routing(lambda alpha: torch.full_like(alpha, 1 / alpha.shape[1])),
    "no window": with_routing(all_ones_alone),
}


@torch.no_grad()
def study_losses(model: DiffRGenForReportGeneration, dataset: StudyDataset, batch_size: int) -> dict[str, np.ndarray]:
    """Return the language and the disease loss of each study (n, 2) under each of CHANGES."""
    changes = {name: change for name, change in CHANGES.items() if name != OTHER_D or model.difference is not None}
    found: dict[str, list[Tensor]] = {name: [] for name in changes}
    for example in example_loader(dataset, batch_size=batch_size, workers=0):
        states, labels = example["states"], example["labels"]
        for name, encode_changed in changes.items():
            encoded = encode_changed(model, example)
            logits = model(encoder_outputs=encoded, states=states, labels=labels).logits
            tokens = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="none")
            tokens = tokens.view_as(labels).sum(1) / (labels != IGNORED).sum(1)
            diseases = F.cross_entropy(encoded.disease_logits, states, reduction="none").mean(1)
            found[name].append(torch.stack([tokens, diseases], dim=1))
    return {name: torch.cat(losses).double().numpy() for name, losses in found.items()}


def measure(run: RunFolder, split: Split, batch_size: int) -> dict[str, Any]:
    """Return mean losses, and how much each change adds with the 95 % interval of a bootstrap over studies.

    DataError where the split has no studies.
    """
    settings, model = run.settings(), run.model()
    source = load_source(settings.data, settings.phantom)
    studies = source.splits[split]
    if not studies:
        raise DataError(f"{source.splits.source}: needed studies in the split {split!r}, got none")
    dataset = run.dataset(model.config, settings, source, studies, key=split, prior=model.config.prior)
    losses = study_losses(model, dataset, batch_size)
    added = {name: values - losses["nothing"] for name, values in losses.items() if name != "nothing"}
    return {
        "machine": describe("cpu"),
        "split": split,
        "studies": len(studies),
        "language_loss": float(losses["nothing"][:, 0].mean()),
        "disease_loss": float(losses["nothing"][:, 1].mean()),
        "added": {
            name: {
                term: {"mean": float(values[:, column].mean()), "interval": mean_interval(values[:, column])}
                for column, term in enumerate(("language_loss", "disease_loss"))
            }
            for name, values in added.items()
        },
    }


def main() -> None:
    """Run the command."""
    command = tyro.cli(Command)
    publish(measure(RunFolder.open(command.run), command.split, command.batch_size), command.output)


if __name__ == "__main__":
    main()

"""Does a network trained on the phantom encode severity, independently of its reports?

    python bench/severity.py RUN --output severity.json

For each finding a linear softmax classifier is fitted on the pooled image features (B, E) of the training studies that have it,
and judged on the test studies, beside the most frequent severity.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import tyro
from machine import describe
from result import publish
from torch import Tensor

from diffrgen.errors import DataError
from diffrgen.model import DiffRGenForReportGeneration
from diffrgen.phantom import GrammarParser
from diffrgen.phantom.patients.states import SEVERITIES
from diffrgen.pipeline.dataset import ExampleSettings
from diffrgen.pipeline.run_folder import RunFolder
from diffrgen.pipeline.source import PHANTOM, load_source
from diffrgen.records import Study

DECAY = 1e-2
# Findings with fewer test studies are left out.
LEAST = 30


@dataclass(frozen=True)
class Command:
    """Measure how well severities are read from a network's image features by a linear classifier."""

    run: tyro.conf.Positional[Path]
    """The folder of a run on the phantom."""
    output: Path | None = None
    """File for all figures as JSON."""


@torch.no_grad()
def pooled_features(model: DiffRGenForReportGeneration, settings: ExampleSettings, studies: Sequence[Study]) -> Tensor:
    """Return the pooled image features of `studies`, (n, E)."""
    features = []
    for start in range(0, len(studies), 64):
        images = [settings.read(study.images[0], settings.transform.resize) for study in studies[start : start + 64]]
        features.append(model.image_encoder(torch.stack([settings.transform(image) for image in images])).pooled)
    return torch.cat(features)


def severities(studies: Sequence[Study]) -> list[Mapping[str, int]]:
    """Return the severity of each positive finding of each study, as an index in SEVERITIES; references give them all."""
    parse = GrammarParser().parse
    told = [parse(study.report).findings for study in studies]
    return [{name: SEVERITIES.index(r.severity) for name, r in each.items() if r.severity} for each in told]


def fit_linear(features: Tensor, classes: Tensor) -> Tensor:
    """Return the weights (E + 1, 3) of a softmax classifier, the last row its biases, by L-BFGS with weight decay."""
    weights = torch.zeros(features.shape[1] + 1, len(SEVERITIES), requires_grad=True)
    optimiser = torch.optim.LBFGS([weights], max_iter=100)

    def loss() -> Tensor:
        optimiser.zero_grad()
        value = F.cross_entropy(scores(features, weights), classes) + DECAY * weights[:-1].square().sum()
        value.backward()
        return value

    optimiser.step(loss)
    return weights.detach()


def scores(features: Tensor, weights: Tensor) -> Tensor:
    """Return the logits (n, 3) of features (n, E)."""
    return features @ weights[:-1] + weights[-1]


def read_linearly(train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor]) -> dict[str, float]:
    """Return the accuracy on `test` of a classifier fitted on `train`, and of the class most frequent in `train`."""
    (features, classes), (unseen, true) = train, test
    mean, std = features.mean(0), features.std(0) + 1e-4
    weights = fit_linear((features - mean) / std, classes)
    read = scores((unseen - mean) / std, weights).argmax(1)
    ((frequent, _),) = Counter(classes.tolist()).most_common(1)
    return {
        "studies": len(true),
        "read": (read == true).float().mean().item(),
        "most_frequent": (true == frequent).float().mean().item(),
    }


def measure(run: RunFolder) -> dict[str, Any]:
    """Return what is read of each finding's severity; DataError for a run on other data than the phantom."""
    settings = run.settings()
    if settings.data.data != PHANTOM:
        raise DataError(f"{run.path}: needed a run on the phantom, whose reports give all severities, got {settings.data.data}")
    model = run.model()
    source = load_source(settings.data, settings.phantom)
    examples = run.example_settings(model.config, settings, read=source.read_image)
    splits = [
        (pooled_features(model, examples, studies), severities(studies))
        for studies in (source.splits.train, source.splits.test)
    ]
    findings: dict[str, dict[str, float]] = {}
    for name in sorted({name for told in splits[1][1] for name in told}):
        rows = [[row for row, each in enumerate(told) if name in each] for _, told in splits]
        if len(rows[1]) >= LEAST:
            pairs = [
                (features[chosen], torch.tensor([told[row][name] for row in chosen]))
                for (features, told), chosen in zip(splits, rows, strict=True)
            ]
            findings[name] = read_linearly(*pairs)
    total = sum(found["studies"] for found in findings.values())
    together = {
        key: sum(found[key] * found["studies"] for found in findings.values()) / total for key in ("read", "most_frequent")
    }
    return {"machine": describe("cpu"), "findings": findings, "together": together}


def main() -> None:
    """Run the command."""
    command = tyro.cli(Command)
    publish(measure(RunFolder.open(command.run)), command.output)


if __name__ == "__main__":
    main()

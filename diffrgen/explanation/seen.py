"""The location of each finding for a network with finding queries: the attention of the finding's row over the image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from diffrgen.explanation.recording import Call, recorded
from diffrgen.labels import AUXILIARY, FINDINGS, NO_FINDING
from diffrgen.model import DiffRGenForReportGeneration, StudyInputs
from diffrgen.model.coattention import CoAttentionRouting


@dataclass(frozen=True)
class SeenFinding:
    """The attention of one finding's row over one image of a study.

    heat (gh, gw): shares of the attention, which sum to 1; centre: row and column of its centre of mass, as shares of the
    image's height and width.
    """

    finding: str
    heat: np.ndarray = field(repr=False)
    centre: tuple[float, float]


def routing_layers(model: DiffRGenForReportGeneration) -> list[CoAttentionRouting]:
    """Return the modules whose calls `findings_attention` takes, none for a network without finding queries."""
    return [] if model.finding_queries is None else [layer.mhcar for layer in model.fam.routing_layers]


def findings_attention(model: DiffRGenForReportGeneration, calls: Sequence[Sequence[Call]]) -> Tensor | None:
    """Return the weights (B, C, m) over the patches, the mean over layers and heads of A^0's attention.

    calls: those of each of `routing_layers` while the study was encoded; the first is that of the similar features, whose
    last C rows are the findings'. None for a network without finding queries.
    """
    layers = routing_layers(model)
    if not layers:
        return None
    queries = model.config.findings
    given = [own[0].inputs for own in calls]
    weights = [layer.attention(z[:, -queries:], route) for layer, (z, route) in zip(layers, given, strict=True)]
    return torch.stack(weights).float().mean(0)


@torch.no_grad()
def attention_to_images(model: DiffRGenForReportGeneration, inputs: StudyInputs) -> Tensor:
    """Return `findings_attention` of a batch; ValueError for a network without finding queries."""
    with recorded(*routing_layers(model)) as calls:
        model.encode(inputs)
    weights = findings_attention(model, calls)
    if weights is None:
        raise ValueError("expected a network with finding queries (config.finding_queries), got one without")
    return weights


def seen_findings(weights: Tensor, grid: tuple[int, int], *, view: int = 0) -> tuple[SeenFinding, ...]:
    """Return where in its view number `view` each finding is seen, of one study's weights (C, V gh gw).

    "No finding" is left out: it has no place.
    """
    names = (*FINDINGS, *AUXILIARY)[: len(weights)]
    own = weights.unflatten(1, (-1, *grid))[:, view]  # (C, gh, gw)
    heats = (own / own.sum((1, 2), keepdim=True)).cpu().numpy()
    named = [(name, heat) for name, heat in zip(names, heats, strict=True) if name != FINDINGS[NO_FINDING]]
    return tuple(SeenFinding(name, heat, centre_of_mass(heat)) for name, heat in named)


def centre_of_mass(heat: np.ndarray) -> tuple[float, float]:
    """Return row and column of the centre of mass of heat (gh, gw), as shares of height and width.

    >>> centre_of_mass(np.array([[0.0, 1.0], [0.0, 1.0]]))
    (0.5, 0.75)
    """
    rows, columns = ((np.arange(count) + 0.5) / count for count in heat.shape)
    total = heat.sum()
    return float(heat.sum(1) @ rows / total), float(heat.sum(0) @ columns / total)

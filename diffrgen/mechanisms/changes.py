"""The changes to a network: one part is taken from another study, or the routing weights are replaced."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Literal
from unittest.mock import patch

import torch
from torch import Tensor

from diffrgen.model import DiffRGenForReportGeneration, StudyInputs
from diffrgen.model.fam import FlexiRouteAggregation
from diffrgen.model.outputs import EncodedStudy
from diffrgen.model.router import Router
from diffrgen.pipeline.dataset import Example

Encode = Callable[[DiffRGenForReportGeneration, Example], EncodedStudy]
NOTHING = "nothing"
VIEWS = ("pixel_values", "view_mask", "view_kinds")
OTHER_D = "another's D in the memory"
OTHER_ROWS = "another's finding rows in the prompt"
OTHER_SEVERITIES = "another's severities in the prompt"


def exchanged(rows: Tensor) -> Tensor:
    """Return each row from half a batch away, because neighbouring studies may be of one patient."""
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
        # The context rows follow D.
        patches, rows = views * gh * gw, encoded.last_hidden_state.shape[1] - len(model.config.context)
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

    def of_other(
        fam: FlexiRouteAggregation, f: Tensor, grid: tuple[int, int], mask: Tensor | None = None, rows: int | None = None
    ) -> object:
        return route(fam, exchanged(f), grid, None if mask is None else exchanged(mask), rows)

    with patch.object(FlexiRouteAggregation, "route", of_other):
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
    alone[..., 0] = 1
    return alone


def with_other_in_prompt(field: Literal["prompt_rows", "severities"]) -> Encode:
    """Encode with a field of other studies in the prompt: the finding rows, or the severities that the network gives."""

    def encode_and_exchange(model: DiffRGenForReportGeneration, example: Example) -> EncodedStudy:
        encoded = encode(model, example)
        encoded[field] = exchanged(encoded[field])
        return encoded

    return encode_and_exchange


# The name of each change, and the function that encodes a batch with it.
CHANGES: Mapping[str, Encode] = MappingProxyType(
    {
        NOTHING: encode,
        "another's image": lambda model, example: encode(model, example, *VIEWS),
        "another's retrieved reports": lambda model, example: encode(model, example, "retrieved", "retrieved_mask"),
        "another's patches in the memory": with_other_rows(0),
        "another's S in the memory": with_other_rows(1),
        OTHER_D: with_other_rows(2),
        OTHER_ROWS: with_other_in_prompt("prompt_rows"),
        OTHER_SEVERITIES: with_other_in_prompt("severities"),
        "another's patches in the co-attention": with_other_co_attention,
        "another's routing": with_routing(exchanged),
        "even routing": with_routing(lambda alpha: torch.full_like(alpha, 1 / alpha.shape[-1])),
        "no window": with_routing(all_ones_alone),
    }
)


def changes_of(model: DiffRGenForReportGeneration) -> dict[str, Encode]:
    """Return those of CHANGES that `model` has the parts for."""
    absent = {OTHER_D} if model.difference is None else set()
    absent |= {OTHER_ROWS} if model.finding_queries is None else set()
    absent |= {OTHER_SEVERITIES} if model.severity is None else set()
    return {name: change for name, change in CHANGES.items() if name not in absent}

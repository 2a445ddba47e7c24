"""Dropping a part of a study in training, so that the rest alone is enough in inference: of the prior study, of the views."""

from __future__ import annotations

import torch
from torch import Tensor

HIDE_IMAGE = HIDE_REPORT = 0.2


def hide_rows(mask: Tensor, generator: torch.Generator) -> Tensor:
    """Return the prior mask (R,) bool with the image's row (the first) hidden, or those of the report, or neither.

    Never both, and neither where the other is absent: a report that mentions a change always has a prior to infer it
    from.
    """
    draw = torch.rand((), generator=generator).item()
    image = torch.arange(len(mask)) == 0
    hidden = image if draw < HIDE_IMAGE else ~image if draw < HIDE_IMAGE + HIDE_REPORT else torch.zeros_like(mask)
    left = mask & ~hidden
    return left if left.any() else mask


def shown_views(count: int, share: float, generator: torch.Generator) -> tuple[int, ...]:
    """Return which of a study's `count` views are shown: with probability `share` a single one, drawn at random, else all."""
    if count < 2 or torch.rand((), generator=generator).item() >= share:
        return tuple(range(count))
    return (int(torch.randint(count, (), generator=generator)),)

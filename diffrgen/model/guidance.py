"""Guided decoding: what the positive states of a prompt add to a report's logits counts several times.

    logits = base + g (prompted - base)

g = 1 is ordinary decoding. `prompted` are the decoder's logits after the study's prompt, `base` those after the same
prompt without its positive states. A study without any is decoded as ever, whatever g is.

Source: classifier-free guidance (Ho and Salimans 2022) as Sanchez et al. (ICML 2024) apply it to language models,
where `base` has no prompt at all.
"""

from __future__ import annotations

from typing import overload

import torch
from torch import Tensor

from diffrgen.labels import NO_FINDING, State


def without_positives(states: Tensor) -> Tensor:
    """Return states (B, C) whose positive findings are blank instead.

    "No finding" is positive where that leaves none of the 13 diseases uncertain; a study without a positive one stays.
    """
    positive = states == State.POSITIVE
    positive[:, NO_FINDING] = False
    base = states.masked_fill(positive, int(State.BLANK))
    normal = positive.any(1) & (base[:, :NO_FINDING] != State.UNCERTAIN).all(1)
    base[:, NO_FINDING] = torch.where(normal, int(State.POSITIVE), base[:, NO_FINDING])
    return base


def beside_base(ids: Tensor, base_prompt: Tensor, *, past: int) -> Tensor:
    """Return ids (B, T) behind `past` cached tokens twice, (2 B, T): as they are, and after base_prompt (B, 1 + C)."""
    base = ids if past else torch.cat([base_prompt, ids[:, base_prompt.shape[1] :]], dim=1)
    return torch.cat([ids, base])


def guided(logits: Tensor, guidance: float) -> Tensor:
    """Return the logits (B, T, V) of guided decoding from those of `beside_base`'s ids (2 B, T, V)."""
    prompted, base = logits.chunk(2)
    return base + guidance * (prompted - base)


@overload
def twice(rows: Tensor) -> Tensor: ...


@overload
def twice(rows: None) -> None: ...


def twice(rows: Tensor | None) -> Tensor | None:
    """Return rows (B, ...) for both halves of `beside_base`'s ids, (2 B, ...)."""
    return None if rows is None else torch.cat([rows, rows])

"""Recall@k of image-to-report retrieval: how often an image finds its own report's text."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

RANKS = (1, 5, 21)


def recall_at(image: Tensor, text: Tensor, text_of: Tensor, *, ranks: Sequence[int] = RANKS) -> dict[str, float]:
    """Return {"recall@k": share of images whose own text is among the k most similar distinct texts}.

    Args:
        image: (n, E) image embeddings.
        text: (U, E) embeddings of the distinct texts.
        text_of: (n,) int64, the text of each image.

    A text that ties with the own one counts as ranked before it, so constant embeddings score 0 at k < U.
    """
    similarity = image @ text.T  # (n, U)
    own = similarity.gather(1, text_of[:, None])
    ahead = (similarity >= own).sum(1) - 1
    return {f"recall@{rank}": (ahead < rank).double().mean().item() for rank in ranks}


def distinct_rows(input_ids: Tensor) -> tuple[Tensor, Tensor]:
    """Return the first position of each distinct row of padded ids (U,) and the distinct row of each row (n,)."""
    _, text_of = torch.unique(input_ids, dim=0, return_inverse=True)
    first = torch.full((int(text_of.max()) + 1,), len(text_of))
    first = first.scatter_reduce(0, text_of, torch.arange(len(text_of)), "amin")
    return first, text_of

"""The views of studies as tensors, padded to the most views of a batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from diffrgen.records import VIEW_KINDS, ViewKind


def kind_numbers(kinds: Sequence[ViewKind]) -> Tensor:
    """Return the places of kinds in `VIEW_KINDS`, (V,) int64."""
    return torch.tensor([VIEW_KINDS.index(kind) for kind in kinds])


def padded_views(pixel_values: Sequence[Tensor], view_kinds: Sequence[Tensor]) -> dict[str, Tensor]:
    """Return the views of B studies, (V, C, S, S) and (V,) each, as the fields of `StudyInputs`, (B, V, ...).

    Absent views are 0. view_mask (B, V) is there only where a view is absent: without one, nothing is masked.
    """
    fields = {
        "pixel_values": pad_sequence(list(pixel_values), batch_first=True),
        "view_kinds": pad_sequence(list(view_kinds), batch_first=True),
    }
    counts = torch.tensor([len(views) for views in pixel_values])
    mask = torch.arange(fields["view_kinds"].shape[1]) < counts[:, None]  # (B, V)
    return fields if mask.all() else {**fields, "view_mask": mask}

"""The patient's prior study as additional references, together with the retrieved reports."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar

import torch
from torch import Tensor, nn

from diffrgen.model.config import DiffRGenConfig


class PriorReferences(nn.Module):
    """Rows of the prior study at the width of Z: the first for its image, the others for the sentences of its report.

    NOTE: not in the paper, which sees one study at a time and so cannot know what its reference reports call new,
    larger or unchanged.
    """

    initial_std: ClassVar[Mapping[str, float]] = MappingProxyType({"kind": 1.0})

    def __init__(self, config: DiffRGenConfig) -> None:
        super().__init__()
        self.projection = None
        if config.retrieved == "tokens":
            # Token features are in another space than a prior's rows, which are embeddings.
            self.projection = nn.Sequential(nn.Linear(config.prior_width, config.width), nn.LayerNorm(config.width))
        self.kind = nn.Parameter(torch.empty(2, config.width))

    def forward(self, prior: Tensor, report_projection: nn.Module) -> Tensor:
        """Project embeddings (B, R, E) to (B, R, d), as the retrieved reports where those are embeddings too."""
        return (self.projection or report_projection)(prior)

    def mark(self, rows: Tensor) -> Tensor:
        """Add to rows (B, R, d) the learned vectors for "prior image" (first row) and "prior report" (other rows)."""
        return rows + torch.cat([self.kind[:1], self.kind[1:].expand(rows.shape[1] - 1, -1)])

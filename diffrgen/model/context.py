"""What is known before the images are read, such as the indication: rows of the decoder's memory, and of the classifier."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar

import torch
from torch import Tensor, nn

from diffrgen.labels import State
from diffrgen.model.config import DiffRGenConfig


class ContextRows(nn.Module):
    """One row for each of F sections (`config.context`), from the embedding that the retriever's text tower gives of it.

        r_f = P e_f + m_f            behind [F ; S ; D] in the decoder's memory
        logits_sc += w_sc . mean_f r_f over the sections that are there         w starts at 0

    P projects as the retrieved reports are projected where those are embeddings too; m_f is a learned mark of the section.

    NOTE: not in the paper, whose network knows nothing of a patient but the image. The classifier learns from the rows,
    because its states prompt the decoder, which hardly uses other inputs for the content of a prompt.
    """

    initial_std: ClassVar[Mapping[str, float]] = MappingProxyType({"mark": 1.0, "readout": 0.0})

    def __init__(self, config: DiffRGenConfig) -> None:
        super().__init__()
        self.projection = None
        if config.retrieved == "tokens":
            # Token features live in a space of their own; a section's row is an embedding.
            self.projection = nn.Sequential(nn.Linear(config.prior_width, config.width), nn.LayerNorm(config.width))
        self.mark = nn.Parameter(torch.empty(len(config.context), config.width))
        self.readout = nn.Parameter(torch.empty(config.findings, len(State), config.width))

    def forward(self, context: Tensor, report_projection: nn.Module) -> Tensor:
        """Return the marked rows (B, F, d) of embeddings (B, F, E)."""
        return (self.projection or report_projection)(context) + self.mark

    def logits(self, rows: Tensor, mask: Tensor) -> Tensor:
        """Return what rows (B, F, d), with mask (B, F) of existing rows, add to the disease logits (B, 4, C)."""
        weights = mask.to(rows).unsqueeze(-1)
        mean = (rows * weights).sum(1) / weights.sum(1).clamp_min(1)  # (B, d)
        return torch.einsum("bd,csd->bsc", mean, self.readout.to(rows))

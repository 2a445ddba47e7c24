"""Sections known before the images are read, such as the indication: rows of the decoder's memory and of the classifier."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar

import torch
from torch import Tensor, nn

from diffrgen.labels import State
from diffrgen.model.config import DiffRGenConfig

# A standard deviation below this is rounding: components of unit-length embeddings.
NEGLIGIBLE = 1e-6


class ContextRows(nn.Module):
    """One row for each of F sections (`config.context`), from the embedding that the retriever's text tower gives of it.

        r_f = P((e_f - mean_f) / std_f) + m_f            behind [F ; S ; D] in the decoder's memory
        logits_sc += w_sc . mean_f r_f over the sections that are there         w starts at 0

    P is a linear layer with LayerNorm, m_f a learned mark of the section. mean_f and std_f are those of the training studies'
    embeddings, component by component (`standardise`), 0 and 1 before: embeddings of "Cough. Evaluate for edema." and
    "Cough. Evaluate for pneumonia." have a cosine of 0.98, and a linear layer hardly told them apart in 1,800 steps.

    NOTE: not in the paper, whose network knows nothing of a patient but the image. The classifier learns from the rows,
    because its states prompt the decoder, which hardly uses other inputs for the content of a prompt.
    """

    mean: Tensor
    std: Tensor
    initial_std: ClassVar[Mapping[str, float]] = MappingProxyType({"mark": 1.0, "readout": 0.0})

    def __init__(self, config: DiffRGenConfig) -> None:
        super().__init__()
        shape = (len(config.context), config.prior_width)
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("std", torch.ones(shape))
        self.projection = nn.Sequential(nn.Linear(config.prior_width, config.width), nn.LayerNorm(config.width))
        self.mark = nn.Parameter(torch.empty(len(config.context), config.width))
        self.readout = nn.Parameter(torch.empty(config.findings, len(State), config.width))

    @property
    def is_standardised(self) -> bool:
        """Whether `standardise` has been called, here or in the run that the weights are from."""
        return bool((self.std != 1).any())

    def standardise(self, mean: Tensor, std: Tensor) -> None:
        """Take mean and standard deviation (F, E) of the training studies' embeddings; a component that does not vary stays."""
        self.mean.copy_(mean)
        self.std.copy_(std.where(std > NEGLIGIBLE, 1.0))

    def forward(self, context: Tensor) -> Tensor:
        """Return the marked rows (B, F, d) of embeddings (B, F, E)."""
        return self.projection((context - self.mean) / self.std) + self.mark

    def logits(self, rows: Tensor, mask: Tensor) -> Tensor:
        """Return what rows (B, F, d), with mask (B, F) of existing rows, add to the disease logits (B, 4, C)."""
        weights = mask.to(rows).unsqueeze(-1)
        mean = (rows * weights).sum(1) / weights.sum(1).clamp_min(1)  # (B, d)
        return torch.einsum("bd,csd->bsc", mean, self.readout.to(rows))

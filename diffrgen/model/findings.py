"""Finding queries: a learned row for each finding, aggregated with Z, for the classifier and the decoder's prompt."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffrgen.labels import State
from diffrgen.model.config import DiffRGenConfig


class FindingQueries(nn.Module):
    """A learned query for each of C findings joins the rows of Z (Eq. 2) and collects what the image shows of it.

    Two parts learn from the row r_c that the aggregation makes of query c:

        classifier:  logits_sc += w_sc . r_c                                         w starts at 0
        decoder:     e_c += sigmoid(g_c) rms(e_c) x_c,  x_c = W r_c, standardised    g starts at 0

    where e_c is the embedding of the prompt token for the state of finding c: the decoder finds what is known of a
    finding in one place. The row has at most the size of the embedding, whose state it must not drown.

    NOTE: not in the paper, whose rows are reports: no row asks where a finding is.
    """

    initial_std: ClassVar[Mapping[str, float]] = MappingProxyType({"queries": 1.0, "readout": 0.0, "gate": 0.0})

    def __init__(self, config: DiffRGenConfig) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.empty(config.findings, config.width))
        self.readout = nn.Parameter(torch.empty(config.findings, len(State), config.width))
        self.gate = nn.Parameter(torch.empty(config.findings))
        self.projection = nn.Linear(config.width, config.decoder.hidden_size)

    def beside(self, z: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return [z ; queries] (B, N + C, d) and its mask (B, N + C) for z (B, N, d) and mask (B, N)."""
        queries = self.queries.to(z).expand(len(z), -1, -1)
        return torch.cat([z, queries], dim=1), torch.cat([mask, mask.new_ones(queries.shape[:2])], dim=1)

    def logits(self, rows: Tensor) -> Tensor:
        """Return what rows (B, C, d) add to the disease logits (B, 4, C)."""
        return torch.einsum("bcd,csd->bsc", rows, self.readout.to(rows))

    def prompt_rows(self, rows: Tensor) -> Tensor:
        """Return x (B, C, decoder width) of rows (B, C, d)."""
        projected = self.projection(rows)
        return F.layer_norm(projected, projected.shape[-1:])

    def join(self, words: Tensor, prompt_rows: Tensor) -> Tensor:
        """Return the embeddings words (B, T, decoder width) of [start, prompt, report so far] with x (B, C, ...) joined."""
        start, prompt, report = words.split([1, prompt_rows.shape[1], words.shape[1] - 1 - prompt_rows.shape[1]], dim=1)
        size = prompt.detach().float().pow(2).mean(-1, keepdim=True).sqrt()  # (B, C, 1)
        share = self.gate.sigmoid()[:, None] * size
        return torch.cat([start, prompt + (share * prompt_rows).to(prompt), report], dim=1)

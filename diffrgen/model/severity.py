"""Severities: how severe each positive finding is, as a classifier sees it, and as the decoder's prompt says it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffrgen.labels import Severity, State
from diffrgen.model.config import DiffRGenConfig


class SeverityHead(nn.Module):
    """Linear classifier of [pooled image ; mean S] into the severities of each of C findings, and its part of the prompt.

        e_c += u_v     if finding c is prompted as positive and v, its severity, is not "unstated"

    e_c is the embedding of the prompt token for the state of finding c, u_v a learned embedding of severity v. In training
    v is what the reference report states, in generation the most probable one.

    NOTE: not in the paper. A decoder that sees the image alone guesses severities, though a linear classifier reads them
    from the pooled features: docs/experiments.md.
    """

    def __init__(self, config: DiffRGenConfig, image_width: int) -> None:
        super().__init__()
        self.shape = (len(Severity), config.findings)
        self.head = nn.Linear(image_width + config.width, len(Severity) * config.findings)
        self.words = nn.Embedding(len(Severity), config.decoder.hidden_size)
        tokens = [config.prompt_token_ids, *config.prior_prompt_token_ids]
        self.positive_ids = tuple(states[State.POSITIVE] for states in tokens)

    def forward(self, pooled: Tensor, similar: Tensor) -> Tensor:
        """Return logits (B, 4, C) over `Severity` from pooled image (B, E) and mean S (B, d)."""
        return self.head(torch.cat([pooled, similar], dim=-1)).unflatten(-1, self.shape)

    def loss(self, logits: Tensor, severities: Tensor, states: Tensor) -> Tensor:
        """Return the mean cross-entropy of logits (B, 4, C) for severities (B, C) where states (B, C) are positive."""
        positive = (states == State.POSITIVE).float()
        losses = F.cross_entropy(logits.float(), severities, reduction="none")  # (B, C)
        return (losses * positive).sum() / positive.sum().clamp_min(1)

    def join(self, words: Tensor, ids: Tensor, severities: Tensor) -> Tensor:
        """Return the embeddings words (B, T, decoder width) of ids (B, T), which begin with [start, prompt], with u joined."""
        start, prompt, report = words.split([1, severities.shape[1], words.shape[1] - 1 - severities.shape[1]], dim=1)
        tokens = ids[:, 1 : 1 + severities.shape[1]]
        positive = torch.isin(tokens, ids.new_tensor(self.positive_ids))  # (B, C)
        said = (positive & (severities != Severity.UNSTATED)).unsqueeze(-1)
        return torch.cat([start, prompt + (self.words(severities) * said).to(prompt), report], dim=1)

"""Eq. 8: supervised contrastive learning of similar (S) against difference (D) features."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffrgen.labels import NO_FINDING, State
from diffrgen.model.config import DiffRGenConfig
from diffrgen.model.processes import gather, own_rows


def shared_disease(states: Tensor, others: Tensor) -> Tensor:
    """Return (B, B') True where two studies have a disease positive in both; `no finding` is no disease.

    states: (B, C), others: (B', C) states of each finding.
    """
    diseases = [c for c in range(states.shape[1]) if c != NO_FINDING]
    mine, theirs = ((s[:, diseases] == State.POSITIVE.value).float() for s in (states, others))
    return mine @ theirs.T > 0


def supervised_contrast(
    anchor: Tensor,
    similar: Tensor,
    difference: Tensor,
    same: Tensor,
    *,
    temperature: float,
    form: Literal["supervised", "printed"] = "supervised",
    own: Tensor | None = None,
    images: Tensor | None = None,
) -> Tensor:
    """Return L_SCL, a scalar (Eq. 8), f being cosine similarity / temperature.

    anchor (B, e): images; similar, difference (B', e): S and D of the whole (gathered) batch, or difference (0, e) for a
    network without D; same (B, B') True where anchor and study share a disease; own (B,) each anchor's row in B'
    (default: 0 .. B-1); images (B', e): the images of the whole batch (default: anchor).

    `supervised`: -mean_i 1/|P(i)| sum_{p in P(i)} log( e^f(i,p) / sum_{a != i} e^f(i,a) ), with P(i) = own S, and
    every S and image that shares a disease; the denominator runs over all images but the anchor, all S and all D.
    `printed`: Eq. 8 to the letter: the own S over the negatives alone (all D, and what shares no disease).
    NOTE: `supervised` is Khosla's "out" form: with the positive in the denominator the loss is bounded below by 0.
    """
    images = anchor if images is None else images
    rows = torch.arange(len(anchor), device=anchor.device)
    own = rows if own is None else own
    is_own = torch.zeros_like(same)
    is_own[rows, own] = True
    candidates = F.normalize(torch.cat([images, similar, difference]), dim=-1)  # (3B', e)
    scores = F.normalize(anchor, dim=-1) @ candidates.T / temperature  # (B, 3B')
    nothing = torch.zeros_like(same)
    of_difference = nothing[:, : len(difference)]
    positive = torch.cat([same & ~is_own, same | is_own, of_difference], dim=1)
    anchor_itself = torch.cat([is_own, nothing, of_difference], dim=1)
    if form == "printed":
        own_similar = scores[rows, same.shape[1] + own]
        negatives = scores.masked_fill(positive | anchor_itself, -torch.inf)
        return (torch.logsumexp(negatives, dim=1) - own_similar).mean()
    log_share = scores - torch.logsumexp(scores.masked_fill(anchor_itself, -torch.inf), dim=1, keepdim=True)
    return -(log_share.masked_fill(~positive, 0.0).sum(1) / positive.sum(1)).mean()


class ContrastHead(nn.Module):
    """Project the image, S and D to the space of Eq. 8 and compute its loss; in training, over all processes."""

    def __init__(self, config: DiffRGenConfig, image_width: int) -> None:
        super().__init__()
        self.temperature, self.form = config.contrast_temperature, config.contrast_form
        self.image = nn.Linear(image_width, config.contrast_width)
        self.tokens = nn.Linear(config.width, config.contrast_width)

    def forward(self, pooled: Tensor, similar: Tensor, difference: Tensor | None, states: Tensor) -> Tensor:
        """Return L_SCL of pooled image (B, E), mean S and mean D (B, d; None: there is no D) and states (B, C)."""
        with torch.autocast(pooled.device.type, enabled=False):
            anchor = self.image(pooled.float())
            similar = self.tokens(similar.float())
            difference = similar[:0] if difference is None else self.tokens(difference.float())
            # Outside training, the number and size of batches differ between processes.
            everywhere, own = (gather, own_rows(anchor)) if self.training else (nn.Identity(), None)
            return supervised_contrast(
                anchor,
                everywhere(similar),
                everywhere(difference),
                shared_disease(states, everywhere(states)),
                temperature=self.temperature,
                form=self.form,
                own=own,
                images=everywhere(anchor),
            )

"""Disease states from image and similar features, and Eq. 9: the logit-adjusted loss with its adaptive prior."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffrgen.labels import FINDINGS, NO_FINDING, State
from diffrgen.model.config import DiffRGenConfig

# log pi must stay finite for a disease that the training split never shows as positive.
PRIOR_FLOOR = 1e-4


def logit_adjusted_loss(logits: Tensor, states: Tensor, prior: Tensor | None) -> Tensor:
    """Return the mean over studies and diseases of the cross-entropy of Eq. 9.

        -log( e^(f_P + log pi_D) / (sum_{y != P} e^f_y + e^(f_P + log pi_D)) )   for a positive; others likewise

    logits: (B, 4, C); states: (B, C) int64; prior pi: (C,) in (0, 1], or None for no adjustment. A rare disease
    (small pi) must raise its positive logit further to be right, and the adjustment is absent at inference, so its
    recall rises.
    """
    logits = logits.float()
    if prior is not None:
        shift = torch.zeros_like(logits[0])  # (4, C)
        shift[State.POSITIVE] = prior.clamp_min(PRIOR_FLOOR).log()
        logits = logits + shift
    return F.cross_entropy(logits, states)


def initial_class_prior(states: Tensor) -> Tensor:
    """Return pi_D = frequency of positives / the largest such frequency, (C,), from training states (n, C).

    NOTE: as in PromptMRG's release, pi is 1 for the auxiliary findings of 18-wide labels: these are not adjusted.
    """
    frequency = (states == State.POSITIVE).float().mean(0)
    largest = frequency[: len(FINDINGS)].max().clamp_min(torch.finfo(torch.float32).tiny)
    prior = (frequency / largest).clamp_min(PRIOR_FLOOR)
    prior[len(FINDINGS) :] = 1.0
    return prior


def adapted_class_prior(prior: Tensor, positive_probability: Tensor, states: Tensor) -> Tensor:
    """Return pi after an evaluation: mean P(positive) over the validation positives of a disease / the largest mean.

    prior: (C,); positive_probability: (n, C); states: (n, C). A disease without validation positives keeps its pi, and
    so does an auxiliary finding.
    """
    prior, auxiliary = prior[: len(FINDINGS)], prior[len(FINDINGS) :]
    states, positive_probability = states[:, : len(FINDINGS)], positive_probability[:, : len(FINDINGS)]
    positives = (states == State.POSITIVE).to(positive_probability)
    counts = positives.sum(0)
    means = (positive_probability * positives).sum(0) / counts.clamp_min(1)
    if not (counts > 0).any():
        return torch.cat([prior, auxiliary])
    adapted = means / means.max().clamp_min(torch.finfo(means.dtype).tiny)
    return torch.cat([torch.where(counts > 0, adapted.to(prior), prior).clamp_min(PRIOR_FLOOR), auxiliary])


def positive_probability(logits: Tensor) -> Tensor:
    """Return P(positive) (B, C) float32 of each disease from logits (B, 4, C)."""
    return logits.float().softmax(1)[:, State.POSITIVE]


def thresholded_states(logits: Tensor, thresholds: Tensor) -> Tensor:
    """Return disease states (B, C): positive where P(positive) >= the threshold, else the most likely other state.

    logits: (B, 4, C); thresholds: (C,) or (B, C) in [0, 1], above 1 for a finding that is never positive. "No finding" is
    positive where no other of the first 14 findings is positive or uncertain, so that the states do not contradict each other.
    """
    positive = positive_probability(logits) >= thresholds  # (B, C)
    others = logits.clone()
    others[:, State.POSITIVE] = -torch.inf
    states = torch.where(positive, int(State.POSITIVE), others.argmax(1))
    diseases = states[:, :NO_FINDING]
    normal = ((diseases != State.POSITIVE) & (diseases != State.UNCERTAIN)).all(1)
    states[:, NO_FINDING] = torch.where(normal, int(State.POSITIVE), int(State.BLANK))
    return states


class DiseaseClassifier(nn.Module):
    """Linear classifier of [pooled image ; mean S] into four states a disease; the prior pi of Eq. 9 is a buffer."""

    class_prior: Tensor

    def __init__(self, config: DiffRGenConfig, image_width: int) -> None:
        super().__init__()
        self.adjust = config.logit_adjustment
        self.shape = (len(State), config.findings)
        self.head = nn.Linear(image_width + config.width, len(State) * config.findings)
        self.register_buffer("class_prior", torch.ones(config.findings))

    def forward(self, pooled: Tensor, similar: Tensor) -> Tensor:
        """Return disease logits (B, 4, C) from pooled image (B, E) and mean S (B, d)."""
        return self.head(torch.cat([pooled, similar], dim=-1)).unflatten(-1, self.shape)

    def loss(self, logits: Tensor, states: Tensor) -> Tensor:
        """Return Eq. 9's loss; the prior is applied in training only."""
        return logit_adjusted_loss(logits, states, self.class_prior if self.adjust and self.training else None)

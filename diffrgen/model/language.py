"""L_LM: the language loss of a report, with label smoothing and more weight on the words that matter."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

IGNORED = -100


def token_weights(
    labels: Tensor, finding_tokens: Sequence[int], weight: float, unlearned: Sequence[int] = ()
) -> Tensor:
    """Return the weights of labels (B, T): 0 where IGNORED or a token of `unlearned`, `weight` for a token of
    `finding_tokens`, 1 for others."""
    weights = (labels != IGNORED).float()
    for tokens, value in ((finding_tokens, weight), (unlearned, 0.0)):
        if tokens and value != 1.0:
            weights[torch.isin(labels, torch.tensor(tokens, device=labels.device))] = value
    return weights


def weighted_language_loss(logits: Tensor, labels: Tensor, weights: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    """Return the weighted mean over tokens of -log p(token), a scalar float32.

        sum_t w_t CE(logits_t, labels_t) / sum_t w_t

    logits (B, T, V); labels (B, T) int64; weights (B, T), 0 where the label is IGNORED. 0 where every weight is 0.
    """
    losses = F.cross_entropy(
        logits.float().flatten(0, 1),
        labels.flatten(),
        ignore_index=IGNORED,
        label_smoothing=label_smoothing,
        reduction="none",
    )
    return (losses * weights.flatten()).sum() / weights.sum().clamp_min(torch.finfo(torch.float32).tiny)

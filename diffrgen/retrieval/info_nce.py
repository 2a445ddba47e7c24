"""Symmetric InfoNCE over a batch of image-report pairs, with several positives where reports are the same text."""

from __future__ import annotations

import torch
from torch import Tensor


def same_text(input_ids: Tensor) -> Tensor:
    """Return which reports of a padded batch are the same text, (B, T) -> (B, B) bool."""
    return (input_ids[:, None] == input_ids[None]).all(-1)


def info_nce(image: Tensor, text: Tensor, *, scale: Tensor | float, positives: Tensor) -> Tensor:
    """Return the symmetric InfoNCE loss, a float32 scalar.

        s = scale * image @ text.T ;  P[i, j] = 1 if report j is a positive of image i
        loss = 1/2 mean_i( - sum_j P[i, j] / |P_i| * log_softmax_j(s[i, :]) )      images ask for reports
             + 1/2 mean_j( - sum_i P[i, j] / |P_j| * log_softmax_i(s[:, j]) )      reports ask for images

    Radiology reports repeat word for word ("no acute cardiopulmonary process"). Plain InfoNCE would push an image away
    from copies of its own report, which no embedding can satisfy as the copies share one embedding; with the
    copies as positives of equal weight the loss has a minimum that can be reached. Without copies P is the identity
    and the loss is CLIP's.

    Args:
        image, text: (B, E) unit-length rows; sums run in float32.
        scale: inverse temperature.
        positives: (B, B) bool, symmetric, true on the diagonal.
    """
    if image.shape != text.shape or positives.shape != (len(image), len(image)):
        raise ValueError(
            f"expected image and text of one shape (B, E) and positives (B, B), got {tuple(image.shape)}, "
            f"{tuple(text.shape)} and {tuple(positives.shape)}"
        )
    with torch.autocast(image.device.type, enabled=False):
        logits = scale * image.float() @ text.float().T  # (B, B)
        weights = positives.float()
        weights = weights / weights.sum(1, keepdim=True)
        to_text = -(weights * logits.log_softmax(1)).sum(1).mean()
        to_image = -(weights * logits.T.log_softmax(1)).sum(1).mean()
    return (to_text + to_image) / 2

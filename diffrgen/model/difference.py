"""Eq. 1: how each retrieved report differs from the image, by three metrics."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffrgen.model.config import DiffRGenConfig


def difference_metrics(z: Tensor, f: Tensor, metrics: tuple[str, ...]) -> Tensor:
    """Compare every retrieved report with the image (Eq. 1, before the MLP).

        dif_L2 = ||z_k - f||_2;  dif_cos = z_k . f / (||z_k|| ||f||);  dif_dot = z_k . f

    z: (B, N, d) retrieved reports, f: (B, d) pooled image; returns (B, N, len(metrics)) in the order of `metrics`,
    names out of l2, cosine, dot. A zero vector has cosine 0.
    """
    image = f.unsqueeze(1).expand_as(z)  # (B, N, d)
    values = {
        "l2": lambda: torch.linalg.vector_norm(z - image, dim=-1),
        "cosine": lambda: F.cosine_similarity(z, image, dim=-1),
        "dot": lambda: (z * image).sum(-1),
    }
    return torch.stack([values[name]() for name in metrics], dim=-1)


class FeatureDifference(nn.Module):
    """Eq. 1: dif = MLP(concat(dif_L2, dif_cos, dif_dot)), a feature of width d for each retrieved report.

    NOTE: the three scalars have scales 1, sqrt(d) and d, so they are standardised first. `difference_norm="batch"`
    standardises each metric over the batch and its neighbours. A LayerNorm over the three (`"layer"`) would leave one
    degree of freedom of the three, and none at all once two metrics are switched off (Table 3). With all three off the
    network has no such module (Table 2).
    """

    def __init__(self, config: DiffRGenConfig) -> None:
        super().__init__()
        self.metrics = config.difference_metrics
        count = len(self.metrics)
        norms = {"batch": nn.BatchNorm1d, "layer": nn.LayerNorm, "none": lambda _: nn.Identity()}
        self.norm = norms[config.difference_norm](count)
        self.mlp = nn.Sequential(
            nn.Linear(count, config.difference_hidden),
            nn.ReLU(),
            nn.Linear(config.difference_hidden, config.width),
        )

    def forward(self, z: Tensor, f: Tensor) -> Tensor:
        """Return the difference features (B, N, d) of z (B, N, d) against f (B, d)."""
        return self._features(z, f, self.norm)

    def of_prior(self, z: Tensor, f: Tensor) -> Tensor:
        """Return those of a prior's rows z (B, R, d); call it after `forward`, on the same batch.

        NOTE: they are standardised by the running statistics, in training too: most studies have no prior, and rows
        that are absent must not move the statistics of the batch.
        """
        return self._features(z, f, self._norm_of_evaluation)

    def _features(self, z: Tensor, f: Tensor, norm: Callable[[Tensor], Tensor]) -> Tensor:
        with torch.autocast(z.device.type, enabled=False):
            precise = torch.promote_types(z.dtype, torch.float32)
            metrics = difference_metrics(z.to(precise), f.to(precise), self.metrics)  # (B, N, metrics)
            standardised = norm(metrics.flatten(0, 1)).view_as(metrics)
        return self.mlp(standardised)

    def _norm_of_evaluation(self, metrics: Tensor) -> Tensor:
        norm = self.norm
        if not isinstance(norm, nn.BatchNorm1d):
            return norm(metrics)
        # Copies: the next batch changes the statistics in place, and backward needs them as they are now.
        mean, variance = norm.running_mean.clone(), norm.running_var.clone()
        return F.batch_norm(metrics, mean, variance, norm.weight, norm.bias, training=False, eps=norm.eps)

"""Eq. 1: how each retrieved report differs from the image, by three metrics."""

from __future__ import annotations

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
        with torch.autocast(z.device.type, enabled=False):
            precise = torch.promote_types(z.dtype, torch.float32)
            metrics = difference_metrics(z.to(precise), f.to(precise), self.metrics)  # (B, N, metrics)
            standardised = self.norm(metrics.flatten(0, 1)).view_as(metrics)
        return self.mlp(standardised)

"""Eq. 1: how far each retrieved report is from the image, by three metrics, and in what the two differ."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffrgen.model.config import DiffRGenConfig
from diffrgen.model.views import mean_of_present


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


class ContentDifference(nn.Module):
    """In what a retrieved report differs from the image: MLP([z_k - f_k ; z_k * f_k ; f_k]), of width d.

        f_k = concat over heads of softmax_l( Q z_k . K F_l / sqrt(D) ) V F_l

    NOTE: not in the paper, whose three metrics measure how far a report is from the image, but not what differs. With the metrics
    alone the decoder gained nothing from D in four of five runs on the phantom; with the content 0.009 to 0.030 nats a
    token in each of four.
    """

    def __init__(self, config: DiffRGenConfig) -> None:
        super().__init__()
        width, self.heads = config.width, config.heads
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(3 * width, 2 * width), nn.ReLU(), nn.Linear(2 * width, width))

    def forward(self, z: Tensor, patches: Tensor, patch_mask: Tensor | None = None) -> Tensor:
        """Return the content (B, N, d) for z (B, N, d) and patches F (B, m, d); patch_mask (B, m), False for absent ones."""
        query, key, value = (
            part(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part, x in ((self.query, z), (self.key, patches), (self.value, patches))
        )  # (B, H, N or m, D)
        visible = None if patch_mask is None else patch_mask[:, None, None]
        seen = F.scaled_dot_product_attention(query, key, value, attn_mask=visible).transpose(1, 2).flatten(-2)
        return self.mlp(torch.cat([z - seen, z * seen, seen], dim=-1))


class FeatureDifference(nn.Module):
    """Eq. 1: dif = MLP(concat(dif_L2, dif_cos, dif_dot)), a feature of width d for each retrieved report.

    `difference="content"` adds a `ContentDifference` to it, `"scalars"` is Eq. 1 alone.

    NOTE: the three scalars have scales 1, sqrt(d) and d, so they are standardised first. `difference_norm="batch"`
    standardises each metric over the batch and its neighbours. A LayerNorm over the three (`"layer"`) would leave one
    degree of freedom of the three, and none at all once two metrics are switched off (Table 3). With all three off the
    network has no such module (Table 2).
    """

    def __init__(self, config: DiffRGenConfig) -> None:
        super().__init__()
        self.metrics = config.difference_metrics
        count = len(self.metrics)
        norms: dict[str, Callable[[int], nn.Module]] = {
            "batch": nn.BatchNorm1d,
            "layer": nn.LayerNorm,
            "none": lambda _: nn.Identity(),
        }
        self.norm = norms[config.difference_norm](count)
        self.mlp = nn.Sequential(
            nn.Linear(count, config.difference_hidden),
            nn.ReLU(),
            nn.Linear(config.difference_hidden, config.width),
        )
        self.content = ContentDifference(config) if config.difference == "content" else None

    def forward(self, z: Tensor, patches: Tensor, patch_mask: Tensor | None = None) -> Tensor:
        """Return the difference features (B, N, d) of z (B, N, d) against the image's patches F (B, m, d).

        patch_mask (B, m): False for absent patches (default: none is). f is the mean over the present ones.
        """
        return self._features(z, patches, patch_mask, self.norm)

    def of_prior(self, z: Tensor, patches: Tensor, patch_mask: Tensor | None = None) -> Tensor:
        """Return those of a prior's rows z (B, R, d); call it after `forward`, on the same batch.

        NOTE: their metrics are standardised by the running statistics, in training too: most studies have no prior, and
        rows that are absent must not move the statistics of the batch.
        """
        return self._features(z, patches, patch_mask, self._norm_of_evaluation)

    def _features(
        self, z: Tensor, patches: Tensor, patch_mask: Tensor | None, norm: Callable[[Tensor], Tensor]
    ) -> Tensor:
        scalars = self._scalars(z, mean_of_present(patches, patch_mask), norm)
        return scalars if self.content is None else scalars + self.content(z, patches, patch_mask)

    def _scalars(self, z: Tensor, f: Tensor, norm: Callable[[Tensor], Tensor]) -> Tensor:
        with torch.autocast(z.device.type, enabled=False):
            precise = torch.promote_types(z.dtype, torch.float32)
            metrics = difference_metrics(z.to(precise), f.to(precise), self.metrics)  # (B, N, metrics)
            standardised = norm(metrics.flatten(0, 1)).view_as(metrics)
        return self.mlp(standardised)

    def _norm_of_evaluation(self, metrics: Tensor) -> Tensor:
        norm = self.norm
        if not isinstance(norm, nn.BatchNorm1d):
            return norm(metrics)
        # BatchNorm1d keeps both by default.
        assert norm.running_mean is not None
        assert norm.running_var is not None
        # Copies: the next batch changes the statistics in place, but backward requires the present values.
        mean, variance = norm.running_mean.clone(), norm.running_var.clone()
        return F.batch_norm(metrics, mean, variance, norm.weight, norm.bias, training=False, eps=norm.eps)

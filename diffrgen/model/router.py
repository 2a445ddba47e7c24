"""Eq. 7: the routing weights of a layer's masks, computed from the image."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffrgen.model.config import DiffRGenConfig
from diffrgen.model.views import mean_of_present

MIN_TEMPERATURE = 0.05


def gumbel_softmax(logits: Tensor, temperature: Tensor, *, noise: bool, straight_through: bool) -> Tensor:
    """Return routing weights sigma_g(logits) in float32 (float64 for float64), each row summing to one (Eq. 7).

    logits: (..., P). With `noise`, Gumbel noise is added before the softmax. With `straight_through` the forward value is
    one-hot and the gradient that of the soft weights.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if noise:
        return F.gumbel_softmax(logits, tau=cast("float", temperature), hard=straight_through)
    soft = F.softmax(logits / temperature, dim=-1)
    if not straight_through:
        return soft
    hard = torch.zeros_like(soft).scatter(-1, soft.argmax(-1, keepdim=True), 1.0)
    return hard + soft - soft.detach()


class Router(nn.Module):
    """Eq. 7: alpha = sigma_g(MLP(APool(F))), a two-layer MLP of hidden width d/2.

    NOTE: Gumbel noise is drawn in training only, so that generation is deterministic. A single mask leaves
    nothing to choose: alpha is 1, and there is no MLP.
    """

    def __init__(self, config: DiffRGenConfig, masks: int) -> None:
        super().__init__()
        self.straight_through = config.routing == "straight_through"
        self.mlp: nn.Sequential | None = None
        if masks > 1:
            self.mlp = nn.Sequential(
                nn.Linear(config.width, config.width // 2), nn.ReLU(), nn.Linear(config.width // 2, masks)
            )

    def forward(
        self, patches: Tensor, temperature: Tensor, patch_mask: Tensor | None = None, rows: Tensor | None = None
    ) -> Tensor:
        """Return alpha (B, P) from patches F (B, m, d) at `temperature` (a scalar tensor); patch_mask (B, m), see `route`.

        rows (B, N, d): alpha is (B, N, P), that of each row from the image and the row: MLP(APool(F) + z_i).
        """
        if self.mlp is None:
            return patches.new_ones(len(patches), 1, dtype=torch.promote_types(patches.dtype, torch.float32))
        image = mean_of_present(patches, patch_mask)  # (B, d)
        logits = self.mlp(image if rows is None else image.unsqueeze(1) + rows)  # (B, P) or (B, N, P)
        return gumbel_softmax(
            logits, temperature, noise=self.training, straight_through=self.straight_through
        )

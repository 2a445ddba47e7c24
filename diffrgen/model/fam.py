"""Eq. 2-3: the FlexiRoute Aggregation Module (FAM), a stack of dynamic routing attention (DRA) layers."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffrgen.model.coattention import CoAttentionRouting, Route
from diffrgen.model.config import DiffRGenConfig
from diffrgen.model.router import MIN_TEMPERATURE
from diffrgen.model.rows import masked_mean


class SelfAttention(nn.Module):
    """Multi-head self-attention over the tokens (MHA of Eq. 3). A masked token is seen by itself alone."""

    def __init__(self, config: DiffRGenConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.qkv = nn.Linear(config.width, 3 * config.width)
        self.output = nn.Linear(config.width, config.width)

    def forward(self, z: Tensor, mask: Tensor) -> Tensor:
        """Return MHA(z) (B, N, d); mask (B, N) is True for real tokens."""
        query, key, value = self.qkv(z).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # (B, H, N, D) each
        itself = torch.eye(z.shape[1], dtype=torch.bool, device=z.device)
        visible = (mask[:, None, :] | itself)[:, None]  # (B, 1, N, N)
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=visible)
        return self.output(mixed.transpose(1, 2).flatten(-2))


class DynamicRoutingAttention(nn.Module):
    """Eq. 3: three sublayers, each followed by a residual connection and a layer normalisation (post-LN)."""

    def __init__(self, config: DiffRGenConfig, masks: int) -> None:
        super().__init__()
        self.mhcar = CoAttentionRouting(config, masks)
        self.mha = SelfAttention(config)
        self.ffn = nn.Sequential(
            nn.Linear(config.width, 4 * config.width), nn.GELU(), nn.Linear(4 * config.width, config.width)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(config.width) for _ in range(3))
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, z: Tensor, route: Route, mask: Tensor) -> Tensor:
        """Return Z_k (B, N, d) from z = Z_{k-1} (B, N, d) and the image's route; mask (B, N) True for real tokens."""
        routed = self.norms[0](self.dropout(self.mhcar(z, route)) + z)
        attended = self.norms[1](self.dropout(self.mha(routed, mask)) + routed)
        return self.norms[2](self.dropout(self.ffn(attended)) + attended)


class FlexiRouteAggregation(nn.Module):
    """Eq. 2: Z_k = DRA_k(Z_{k-1}, F) for k in [1, K], layer k routing over the masks A^0 .. A^(p_k - 1).

    `route` takes the image, `forward` the tokens: FAM(Z, F) = fam(z, fam.route(patches, grid), mask).
    """

    temperature: Tensor

    def __init__(self, config: DiffRGenConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(DynamicRoutingAttention(config, masks) for masks in config.masks_per_layer)
        self.register_buffer("temperature", torch.tensor(1.0))

    @property
    def routing_layers(self) -> list[DynamicRoutingAttention]:
        """`layers`, by their type."""
        return [layer for layer in self.layers if isinstance(layer, DynamicRoutingAttention)]

    def set_temperature(self, value: float) -> None:
        """Set the Gumbel-softmax temperature of Eq. 7, held at 0.05 or above."""
        self.temperature.fill_(max(value, MIN_TEMPERATURE))

    def route(
        self,
        patches: Tensor,
        grid: tuple[int, int],
        patch_mask: Tensor | None = None,
        rows: int | None = None,
    ) -> tuple[Route, ...]:
        """Return each layer's keys, values and routing weights for patches F (B, m, d).

        m is a multiple of grid[0] * grid[1]: the views of a study one after the other, each seen through the same windows.
        patch_mask (B, m): False for patches of absent views, which get no weight (None: none is absent). rows: those of
        all the tokens that are to attend to them; where they are few, keys and values are left out (few_rows.py).
        """
        temperature = self.temperature
        return tuple(layer.mhcar.route(patches, grid, temperature, patch_mask, rows) for layer in self.routing_layers)

    def forward(
        self, z: Tensor, routes: tuple[Route, ...], mask: Tensor, used: list[Tensor] | None = None
    ) -> Tensor:
        """Return Z_K (B, N, d) for tokens Z_0 = z (B, N, d); mask (B, N) True for real tokens.

        used: gets each layer's alpha (B, P), the mean over the real tokens where each has its own.
        """
        for layer, route in zip(self.routing_layers, routes, strict=True):
            of_rows = layer.mhcar.of_rows(z, route)
            z = layer(z, of_rows, mask)
            if used is not None:
                alpha = of_rows.alpha
                used.append(alpha if alpha.dim() == 2 else masked_mean(alpha, mask))
        return z

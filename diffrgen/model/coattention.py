"""Eq. 4-5: multi-head co-attention routing (MHCAR), the projections round the routed operator."""

from __future__ import annotations

from typing import NamedTuple

import torch
from diffrgen_kernels import routed_coattention
from torch import Tensor, nn

from diffrgen.model.config import DiffRGenConfig
from diffrgen.model.router import Router


class Route(NamedTuple):
    """What one layer takes from the image: keys and values (B, m, P, H, D), alpha (B, P), the grid of one view's patches,
    and mask (B, m), False for absent patches (None: none is absent).

    `CoAttentionRouting.of_rows` makes of it what a layer takes for its rows: alpha (B, N, P) where each row has its own,
    and centres (B, N), the patches round which the rows' windows lie (None: i mod m). patches (B, m, d) and temperature
    are what it needs for that.
    """

    key: Tensor
    value: Tensor
    alpha: Tensor
    grid: tuple[int, int]
    mask: Tensor | None = None
    patches: Tensor | None = None
    temperature: Tensor | None = None
    centres: Tensor | None = None


class CoAttentionRouting(nn.Module):
    """Eq. 4: MHCAR(Z, F) = concat(head_1 .. head_H) O, head_i = sum_j alpha_j softmax(Q_j K_j^T / sqrt(D) (x) A^j) V_j.

    Every mask has projections of its own, as Eq. 5 indexes them (`share_projections`: one set for all); all of one kind
    come out of a single matrix product. The image side (`route`) is apart from the text side (`forward`), so that two
    token sequences can attend to one image without projecting it twice.
    """

    def __init__(self, config: DiffRGenConfig, masks: int) -> None:
        super().__init__()
        self.orders = tuple(range(masks))
        self.masking, self.backend = config.masking, config.operator_backend
        # One mask, that of all ones, has neither a window nor a weight to choose.
        self.row_routing = config.row_routing and masks > 1
        self.attended_centres = config.centres == "attention" and masks > 1
        sets = 1 if config.share_projections else masks
        self.split = (sets, config.heads, config.width // config.heads)  # (P or 1, H, D)
        self.query = nn.Linear(config.width, sets * config.width, bias=False)
        self.key = nn.Linear(config.width, sets * config.width, bias=False)
        self.value = nn.Linear(config.width, sets * config.width, bias=False)
        self.output = nn.Linear(config.width, config.width)
        self.router = Router(config, masks)

    def route(
        self, patches: Tensor, grid: tuple[int, int], temperature: Tensor, patch_mask: Tensor | None = None
    ) -> Route:
        """Project patches F (B, m, d) to keys and values and choose alpha (Eq. 7); patch_mask (B, m): see `Route`."""
        key = self.key(patches).unflatten(-1, self.split)  # (B, m, P, H, D)
        value = self.value(patches).unflatten(-1, self.split)
        alpha = self.router(patches, temperature, patch_mask)
        return Route(key, value, alpha, grid, patch_mask, patches, temperature)

    def of_rows(self, z: Tensor, route: Route) -> Route:
        """Return `route` with the weights and centres of tokens z (B, N, d), where the configuration asks for their own.

            alpha_i = sigma_g(MLP(APool(F) + z_i));   centre_i = argmax_l of `attention`, over the views' sum, no gradient

        NOTE: not in the paper, where alpha is the image's and row i's window lies round patch i mod m, a place that has
        nothing to do with what the row says.
        """
        if self.row_routing:
            route = route._replace(alpha=self.router(route.patches, route.temperature, route.mask, z))
        if self.attended_centres:
            with torch.no_grad():
                of_views = self.attention(z, route).unflatten(-1, (-1, route.grid[0] * route.grid[1]))
                route = route._replace(centres=of_views.sum(2).argmax(-1))
        return route

    def attention(self, z: Tensor, route: Route) -> Tensor:
        """Return where tokens z (B, N, d) look by A^0, which masks nothing: (B, N, m), the mean over the heads.

            mean_h softmax_l( q_0h . k_0hl / sqrt(D) ),  absent patches left out
        """
        query, key = self.query(z).unflatten(-1, self.split)[:, :, 0], route.key[:, :, 0]  # (B, N or m, H, D)
        logits = torch.einsum("bnhd,bmhd->bhnm", query, key) * query.shape[-1] ** -0.5
        if route.mask is not None:
            logits = logits.masked_fill(~route.mask[:, None, None], -torch.inf)
        return logits.softmax(-1).mean(1)

    def forward(self, z: Tensor, route: Route) -> Tensor:
        """Return MHCAR(Z, F) (B, N, d) for tokens z (B, N, d) and what `of_rows` returns for them."""
        query = self.query(z).unflatten(-1, self.split)  # (B, N, P, H, D)
        heads = routed_coattention(
            query,
            route.key,
            route.value,
            route.alpha,
            grid=route.grid,
            centres=route.centres,
            key_mask=route.mask,
            orders=self.orders,
            masking=self.masking,
            backend=self.backend,
        )  # (B, N, H, D)
        return self.output(heads.flatten(-2))

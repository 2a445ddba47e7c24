"""Eq. 4-5: multi-head co-attention routing (MHCAR), the projections around the fused operator."""

from __future__ import annotations

from typing import NamedTuple

import torch
from diffrgen_kernels import routed_coattention
from torch import Tensor, nn

from diffrgen.model.config import DiffRGenConfig
from diffrgen.model.few_rows import Image, attend, few_rows
from diffrgen.model.router import Router


class Route(NamedTuple):
    """The image side of one layer: patches, keys and values (B, m, P, H, D), and alpha (B, P) at a temperature.

    key and value are None if few rows attend to the image, which then use the patches directly (few_rows.py).

    `CoAttentionRouting.of_rows` adapts it to a layer's rows: alpha (B, N, P) if each row has its own,
    and centres (B, N), the patches at the centres of the rows' windows (None: i mod m).
    """

    image: Image
    key: Tensor | None
    value: Tensor | None
    alpha: Tensor
    temperature: Tensor
    centres: Tensor | None = None


class CoAttentionRouting(nn.Module):
    """Eq. 4: MHCAR(Z, F) = concat(head_1 .. head_H) O, head_i = sum_j alpha_j softmax(Q_j K_j^T / sqrt(D) (x) A^j) V_j.

    Every mask has its own projections, as Eq. 5 indexes them (`share_projections`: one set for all); all of one kind
    are computed by a single matrix product. The image side (`route`) is separate from the text side (`forward`), so that two
    token sequences can attend to one image without projecting it twice.
    """

    def __init__(self, config: DiffRGenConfig, masks: int) -> None:
        super().__init__()
        self.orders = tuple(range(masks))
        self.masking, self.backend = config.masking, config.operator_backend
        # A single mask of all ones has neither windows nor routing weights.
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
        self,
        patches: Tensor,
        grid: tuple[int, int],
        temperature: Tensor,
        patch_mask: Tensor | None = None,
        rows: int | None = None,
    ) -> Route:
        """Choose alpha (Eq. 7) for patches F (B, m, d) and project them to keys and values; patch_mask (B, m): see `Image`.

        rows: the total number of rows that will attend to the image. If there are few, no keys and values are projected.
        """
        image = Image(patches, grid, patch_mask)
        alpha = self.router(patches, temperature, patch_mask)
        if rows is not None and self._takes_few(rows, image):
            return Route(image, None, None, alpha, temperature)
        key = self.key(patches).unflatten(-1, self.split)  # (B, m, P, H, D)
        value = self.value(patches).unflatten(-1, self.split)
        return Route(image, key, value, alpha, temperature)

    def _takes_few(self, rows: int, image: Image) -> bool:
        own_projections = self.split[0] == len(self.orders)
        return own_projections and not self.attended_centres and few_rows(rows, self.split[1], image, self.backend)

    def of_rows(self, z: Tensor, route: Route) -> Route:
        """Return `route` with routing weights and window centres per token z (B, N, d), if the configuration enables them.

            alpha_i = sigma_g(MLP(APool(F) + z_i));   centre_i = argmax_l of `attention`, over the views' sum, no gradient

        NOTE: not in the paper, where alpha depends on the image alone and row i's window is centred on patch i mod m, a
        position unrelated to the content of the row.
        """
        if self.row_routing:
            route = route._replace(alpha=self.router(route.image.patches, route.temperature, route.image.mask, z))
        if self.attended_centres:
            with torch.no_grad():
                height, width = route.image.grid
                of_views = self.attention(z, route).unflatten(-1, (-1, height * width))
                route = route._replace(centres=of_views.sum(2).argmax(-1))
        return route

    def attention(self, z: Tensor, route: Route) -> Tensor:
        """Return the attention of tokens z (B, N, d) under A^0, which masks nothing: (B, N, m), the mean over the heads.

            mean_h softmax_l( q_0h . k_0hl / sqrt(D) ),  without absent patches
        """
        query, mask = self.query(z).unflatten(-1, self.split)[:, :, 0], route.image.mask  # (B, N, H, D)
        key = self.key(route.image.patches).unflatten(-1, self.split) if route.key is None else route.key
        logits = torch.einsum("bnhd,bmhd->bhnm", query, key[:, :, 0]) * query.shape[-1] ** -0.5
        if mask is not None:
            logits = logits.masked_fill(~mask[:, None, None], -torch.inf)
        return logits.softmax(-1).mean(1)

    def forward(self, z: Tensor, route: Route) -> Tensor:
        """Return MHCAR(Z, F) (B, N, d) for tokens z (B, N, d) and what `of_rows` returns for them."""
        query = self.query(z).unflatten(-1, self.split)  # (B, N, P, H, D)
        if route.key is None or route.value is None:
            key, value = (each.weight.unflatten(0, self.split) for each in (self.key, self.value))  # (P, H, D, d)
            heads = attend(query, key, value, route.alpha, route.image, orders=self.orders, masking=self.masking)
        else:
            heads = routed_coattention(
                query,
                route.key,
                route.value,
                route.alpha,
                grid=route.image.grid,
                centres=route.centres,
                key_mask=route.image.mask,
                orders=self.orders,
                masking=self.masking,
                backend=self.backend,
            )  # (B, N, H, D)
        return self.output(heads.flatten(-2))

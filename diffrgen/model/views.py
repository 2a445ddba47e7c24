"""The views of a study: the encoder on its images alone, their patches one grid after the other, a mark by kind."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from diffrgen.images.encoder import PatchEncoder, PatchFeatures
from diffrgen.model.config import DiffRGenConfig
from diffrgen.records import VIEW_KINDS


class ViewFeatures(NamedTuple):
    """The features of studies of V views: the grids of a study's views one after the other, in the order of its views.

    mask: False for the patches of absent views, whose features are 0; None where no view is absent.
    """

    patches: Tensor  # (B, V m, width)
    pooled: Tensor  # (B, width), the mean over the views
    grid: tuple[int, int]  # (gh, gw) of one view, m = gh * gw
    mask: Tensor | None  # (B, V m) bool


def encode_views(encoder: PatchEncoder, pixel_values: Tensor, view_mask: Tensor | None) -> ViewFeatures:
    """Encode the views of each study, (B, V, C, S, S), or one image a study, (B, C, S, S).

    The encoder runs on the images where view_mask (B, V) is True (None: everywhere), so that the statistics of its
    normalisations do not depend on padding. Raises ValueError for a study without any view.
    """
    if pixel_values.dim() == 4:
        image = encoder(pixel_values)
        return ViewFeatures(image.patches, image.pooled, image.grid, mask=None)
    if view_mask is None:
        image = encoder(pixel_values.flatten(0, 1))
        views = PatchFeatures(*(part.unflatten(0, pixel_values.shape[:2]) for part in image[:2]), image.grid)
        return ViewFeatures(views.patches.flatten(1, 2), views.pooled.mean(1), image.grid, mask=None)
    if not view_mask.any(dim=1).all():
        raise ValueError(f"expected at least one view a study, got view_mask {view_mask.tolist()}")
    image = encoder(pixel_values[view_mask])
    patches, pooled = (_placed(part, view_mask) for part in image[:2])  # (B, V, m, width), (B, V, width)
    mask = view_mask.unsqueeze(-1).expand(patches.shape[:3]).flatten(1)
    return ViewFeatures(patches.flatten(1, 2), mean_of_present(pooled, view_mask), image.grid, mask)


def mean_of_present(rows: Tensor, mask: Tensor | None) -> Tensor:
    """Return the mean (B, d) of rows (B, n, d) over those in mask (B, n), over all without one."""
    if mask is None:
        return rows.mean(dim=1)
    weights = mask.to(rows).unsqueeze(-1)
    return (rows * weights).sum(1) / weights.sum(1)


def _placed(features: Tensor, view_mask: Tensor) -> Tensor:
    """Put the features (R, ...) of the R views in view_mask (B, V) into their places, (B, V, ...), 0 elsewhere."""
    placed = features.new_zeros(*view_mask.shape, *features.shape[1:])
    placed[view_mask] = features
    return placed


class ViewMarks(nn.Module):
    """A learned vector for each kind of view, added to the patches of such a view.

    NOTE: not in the paper, which sees one image a study. The vectors are 0 at first, and a network for one image
    (`config.views` = 1) has none: one view gives what the network gave before there were several.
    """

    initial_std: ClassVar[Mapping[str, float]] = MappingProxyType({"kind": 0.0})

    def __init__(self, config: DiffRGenConfig) -> None:
        super().__init__()
        self.kind = nn.Parameter(torch.zeros(len(VIEW_KINDS), config.width))

    def forward(self, patches: Tensor, view_kinds: Tensor) -> Tensor:
        """Mark patches F (B, V m, d) of views of the kinds (B, V) int64, numbers of `VIEW_KINDS`."""
        marks = self.kind[view_kinds].unsqueeze(2)  # (B, V, 1, d)
        return (patches.unflatten(1, (view_kinds.shape[1], -1)) + marks).flatten(1, 2)

"""One call of the operator on the host: its tensors, its masks sorted by kind, and the arguments that the kernels share."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
import triton
from torch import Tensor
from torch.nn import functional as F

from ..contract import MaskSpec, features_of
from .configs import Config, config_for
from .launch import Centres, Inputs, Launch, Shape, View, alpha_view, projection_view
from .tiles import split_dim

LOG2E = 1.4426950408889634  # exponentials are powers of two


@dataclass(frozen=True)
class Call:
    """The arguments of the operator, as contract.Backend describes them."""

    q: Tensor
    k: Tensor
    v: Tensor
    alpha: Tensor
    centres: Tensor | None
    key_mask: Tensor | None
    spec: MaskSpec

    @property
    def masks(self) -> int:
        """P."""
        return self.alpha.shape[-1]

    @property
    def dim(self) -> int:
        """D."""
        return self.q.shape[4]

    @property
    def wide(self) -> bool:
        """Whether q, k and v are float32."""
        return self.q.dtype == torch.float32

    @property
    def shared(self) -> bool:
        """Whether the masks share one projection."""
        return self.q.shape[2] != self.masks

    @cached_property
    def features(self) -> frozenset[str]:
        """The names of contract.FEATURES that it uses."""
        return features_of(self.k, self.alpha, self.centres, self.key_mask, self.spec)

    @property
    def row_alpha(self) -> bool:
        """Whether every row has routing weights of its own."""
        return self.alpha.dim() == 3

    @cached_property
    def full(self) -> tuple[int, ...]:
        """The masks whose windows are all the whole grid."""
        height, width = self.spec.grid
        return tuple(j for j, (high, wide) in enumerate(self.spec.windows) if high >= height - 1 and wide >= width - 1)

    @cached_property
    def windowed(self) -> tuple[int, ...]:
        """The other masks."""
        return tuple(j for j in range(self.masks) if j not in self.full)

    @property
    def floored(self) -> bool:
        """Whether there may be masked keys with the logit 0, which take weight."""
        return bool(self.windowed) and not self.spec.exclusive

    def row_blocks(self, block: int) -> int:
        """Blocks of rows of one study and head; without centres, each lies in one cycle of gh gw rows."""
        rows, patches = self.q.shape[1], self.spec.patches
        if self.centres is not None:
            return triton.cdiv(rows, block)
        return triton.cdiv(rows, patches) * triton.cdiv(min(rows, patches), block)

    def config(self, kernel: str) -> Config:
        """The configuration of a kernel, a key of the tables of configs.py."""
        return config_for(kernel, self.q.dtype, self.dim)

    def new_gradients(self) -> tuple[Tensor, Tensor, Tensor]:
        """Memory for contiguous dq, dk, dv."""
        dq, dk, dv = (torch.empty_like(x, memory_format=torch.contiguous_format) for x in (self.q, self.k, self.v))
        return dq, dk, dv

    def new_results(self, *, needs_lse: bool) -> tuple[Tensor, Tensor]:
        """Memory of forward's results: out (B, N, H, D), and lse (B, N, P, H) if `needs_lse`, else (0,)."""
        batch, rows, _, heads, dim = self.q.shape
        lse = self.alpha.new_empty((batch, rows, self.masks, heads) if needs_lse else 0)
        return self.q.new_empty(batch, rows, heads, dim), lse


def shape_of(call: Call) -> Shape:
    """Sizes, grid and the factors of the logits."""
    batch, rows, _, heads, _ = call.q.shape
    scale = call.spec.scale
    return Shape(batch, rows, call.k.shape[1], call.masks, heads, call.spec.grid[0], scale, scale * LOG2E)


def inputs_of(call: Call, *, sums: bool = True) -> Inputs:
    """The tensors of a call; in the place of one that it lacks stands another, which no kernel looks at.

    sums: whether the kernels want sums over the keys.
    """
    absent = call.alpha
    key_mask, outside = absent, absent
    if call.key_mask is not None:
        key_mask = call.key_mask.contiguous().view(torch.uint8)
        outside = keys_outside(call) if call.floored else absent
    centres = Centres(absent, absent, absent)
    if call.centres is not None:
        centres = rows_by_centre(call.centres, call.q.shape[0], call.spec.grid)
    return Inputs(
        projection_view(call.q),
        projection_view(call.k),
        projection_view(call.v),
        alpha_view(call.alpha),
        centres,
        key_mask,
        _sum_view(sum_over_keys(call)) if call.floored and sums else View(absent),
        outside,
    )


def rows_by_centre(centres: Tensor, batch: int, grid: tuple[int, int]) -> Centres:
    """Rows in the order of the grid rows of their centres, so that rows whose windows lie together are computed together."""
    height, width = grid
    patches = centres.clamp(0, height * width - 1)  # (B or 1, N)
    order = (patches // width).argsort(dim=1, stable=True)
    patches = patches.gather(1, order)
    starts = (patches[:, None] // width < torch.arange(height + 1, device=centres.device)[:, None]).sum(2)
    return Centres(*(x.to(torch.int32).expand(batch, -1).contiguous() for x in (order, patches, starts)))


def sum_over_keys(call: Call) -> Tensor:
    """sum_l v over the keys that exist, (B, P or 1, H, D) float32, which masked keys of logit 0 are weighed with."""
    v = call.v
    if call.key_mask is not None:
        v = v.masked_fill(~call.key_mask[:, :, None, None, None], 0)
    return v.sum(1, dtype=torch.float32).contiguous()


def _sum_view(x: Tensor) -> View:
    batch, mask, head, dim = x.stride()
    return View(x, batch, 0, mask if x.shape[1] > 1 else 0, head, dim)


def keys_outside(call: Call) -> Tensor:
    """(B, P, gh gw) int32: the keys that exist outside the window of each mask round each patch."""
    assert call.key_mask is not None
    height, width = call.spec.grid
    # keys that exist, a grid of counts over the views; float32 is exact below 2^24
    counts = call.key_mask.reshape(-1, 1, call.k.shape[1] // call.spec.patches, height, width).sum(
        2, dtype=torch.float32
    )
    inside = [
        F.avg_pool2d(counts, (2 * high + 1, 2 * wide + 1), 1, (high, wide), divisor_override=1)
        for high, wide in ((min(high, height - 1), min(wide, width - 1)) for high, wide in call.spec.windows)
    ]
    outside = counts.sum((2, 3), keepdim=True) - torch.cat(inside, 1)  # (B, P, gh, gw)
    return outside.flatten(2).to(torch.int32).contiguous()


def constants_of(call: Call) -> dict[str, Any]:
    """The constants of the kernels for own projections: windows, tiles, and which features a call has."""
    # full masks need no window: 0, so that grids of other heights need no other code
    windows = [(0, 0) if j in call.full else window for j, window in enumerate(call.spec.windows)]
    return {
        "HEIGHTS": tuple(high for high, _ in windows),
        "WIDTHS": tuple(wide for _, wide in windows),
        "SQUARE": all(high == wide for high, wide in windows),
        "EXCLUSIVE": call.spec.exclusive,
        "VIEWS": "views" in call.features,
        "CENTRES": call.centres is not None,
        "KEY_MASK": call.key_mask is not None,
        "ROW_ALPHA": call.row_alpha,
        "GW": call.spec.grid[1],
        "D": call.dim,
        "TILES": split_dim(call.dim),
    }


def shared_constants(call: Call) -> dict[str, Any]:
    """The constants of the kernels for shared projections, where masks with the same window are one.

    REACHES: orders of the distinct windows, widest first. WINDOW_OF: the window of each mask. WHOLE: 1 if the first window is
    the whole grid, else 0. FLOORED: whether a masked logit 0 takes weight.
    """
    whole = max(call.spec.grid)  # more than the order of any window that leaves a key out
    reach = [whole if j in call.full else call.spec.windows[j][0] for j in range(call.masks)]
    reaches = sorted(set(reach), reverse=True)
    return {
        "REACHES": tuple(reaches),
        "WINDOW_OF": tuple(reaches.index(order) for order in reach),
        "WHOLE": int(reaches[0] == whole),
        "FLOORED": call.floored,
        "GW": call.spec.grid[1],
        "D": call.dim,
        "TILES": split_dim(call.dim),
    }


def mask_kinds(call: Call) -> list[dict[str, Any]]:
    """The constants of a kernel whose programs do one mask each: for the full MASKS, and for the others, if there are any."""
    kinds = ((call.full, True), (call.windowed, False))
    fixed = {**constants_of(call), "WIDE": call.wide}
    return [{**fixed, "MASKS": masks, "FULL": full} for masks, full in kinds if masks]


def common_arguments(call: Call, *, sums: bool = True) -> dict[str, Any]:
    """The run-time arguments of every kernel."""
    return {"inputs": inputs_of(call, sums=sums), "shape": shape_of(call)}


def launch(
    kernel: Any, call: Call, programs: int, config: Config, arguments: dict[str, Any], constants: dict[str, Any]
) -> None:
    """Launch `programs` programs a study and head; arguments and constants are those beyond the block sizes."""
    Launch(
        kernel,
        call.q.shape[0] * call.q.shape[3] * programs,
        arguments,
        {**constants, "ROWS": config.rows, "KEYS": config.keys},
        config.warps,
        config.stages,
    ).run()

"""The cases that the operator's parity tests and benchmarks share, and Eq. 5-6 written densely as the truth."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor


@dataclass(frozen=True)
class Case:
    """One call of the operator.

    layout: how q, k and v lie in memory. logits: "huge" are whole numbers round +-1e4, "low" round -1e4. centres: drawn
    ones, the same for every study or each its own. keys: which exist; "no_study" leaves none to the first study, "first
    view" the first view of each study only. row_weights: alpha (B, N, P).
    """

    name: str
    batch: int = 2
    rows: int = 5
    grid: tuple[int, int] = (3, 4)
    orders: tuple[int | tuple[int, int], ...] = (0, 1)
    heads: int = 2
    dim: int = 16
    shared: bool = False
    masking: Literal["multiplicative", "exclusive"] = "multiplicative"
    weights: Literal["soft", "one_hot", "some_zero", "zero"] = "soft"
    layout: Literal["contiguous", "one_gemm", "transposed", "expanded"] = "contiguous"
    logits: Literal["normal", "huge", "low"] = "normal"
    scale: float | None = None
    views: int = 1
    centres: Literal["none", "same", "own"] = "none"
    keys: Literal["all", "some", "no_study", "first_view"] = "all"
    row_weights: bool = False

    @property
    def options(self) -> dict[str, Any]:
        """The keyword arguments of the call that are no tensors."""
        return {"grid": self.grid, "orders": self.orders, "masking": self.masking, "scale": self.scale}

    @property
    def patches(self) -> int:
        """Keys of all views."""
        return self.views * self.grid[0] * self.grid[1]

    def options_on(self, device: str) -> dict[str, Any]:
        """All keyword arguments of the call; a plain call's are `options`."""
        tensors = {"centres": drawn_centres(self), "key_mask": drawn_keys(self)}
        return {**self.options, **{name: x.to(device) for name, x in tensors.items() if x is not None}}

    def inputs(self, dtype: torch.dtype, device: str = "cpu", seed: int = 0) -> list[Tensor]:
        """q, k, v and alpha as leaves that require gradients."""
        generator = torch.Generator().manual_seed(seed)
        masks = 1 if self.shared else len(self.orders)
        q, k, v = (self._projection(rows, masks, generator) for rows in (self.rows, self.patches, self.patches))
        if self.logits != "normal":
            q, k = (torch.randint(-2, 3, x.shape, generator=generator) * 32.0 for x in (q, k))
        if self.logits == "low":
            q, k = q.abs(), -k.abs()
        views = [self._lay_out(x.to(device=device, dtype=dtype)) for x in (q, k, v)]
        alpha = self._alpha(generator).to(
            device=device, dtype=torch.float64 if dtype == torch.float64 else torch.float32
        )
        return [x.detach().requires_grad_() for x in (*views, alpha)]

    def _projection(self, rows: int, masks: int, generator: torch.Generator) -> Tensor:
        return torch.randn(self.batch, rows, masks, self.heads, self.dim, generator=generator)

    def _lay_out(self, x: Tensor) -> Tensor:
        if self.layout == "one_gemm":  # the middle one of three projections made by one GEMM
            return torch.stack([x - 1, x, x + 1], dim=2)[:, :, 1]
        if self.layout == "transposed":
            return x.transpose(1, 4).contiguous().transpose(1, 4)
        if self.layout == "expanded":
            return x[:1, :, :, :1].expand(x.shape)
        return x

    def _alpha(self, generator: torch.Generator) -> Tensor:
        shape = (self.batch, *((self.rows,) if self.row_weights else ()), len(self.orders))
        if self.weights == "zero":
            return torch.zeros(shape)
        alpha = torch.softmax(torch.randn(shape, generator=generator), dim=-1)
        if self.weights == "one_hot":
            return torch.nn.functional.one_hot(alpha.argmax(-1), len(self.orders)).float()
        if self.weights == "some_zero":
            alpha[..., ::2] = 0.0
        return alpha


CASES = [
    Case("fewer_rows_than_patches"),
    Case("rows_equal_patches", rows=12),
    Case("rows_cycle_twice", rows=29),
    Case("one_row", rows=1),
    Case("one_study", batch=1, heads=1),
    Case("wide_grid", grid=(2, 9), rows=18, orders=(0, 1, 2)),
    Case("tall_grid", grid=(9, 2), rows=20, orders=(0, 1, 2)),
    Case("one_patch_wide", grid=(7, 1), rows=9, orders=(1, 2)),
    Case("one_patch", grid=(1, 1), rows=3, orders=(0, 1)),
    Case("window_covers_grid", grid=(3, 3), rows=10, orders=(5, 2, 1)),
    Case("window_covers_one_row_only", grid=(5, 3), rows=15, orders=(2,)),
    Case("one_mask_full", orders=(0,)),
    Case("one_mask_window", orders=(1,)),
    Case("three_masks", orders=(0, 1, 2), grid=(5, 5), rows=25),
    Case("four_masks", orders=(3, 2, 1, 0), grid=(7, 7), rows=21),
    Case("five_masks_repeated", orders=(1, 1, 0, 2, 0), grid=(4, 4), rows=7),
    Case("dim_8", dim=8),
    Case("dim_40", dim=40),
    Case("dim_64", dim=64, grid=(7, 7), rows=21, orders=(0, 1, 2)),
    Case("dim_96", dim=96),
    Case("dim_128", dim=128),
    Case("dim_256", dim=256, heads=1),
    Case("dim_odd", dim=19),
    Case("dim_1", dim=1),
    Case("views_of_one_gemm", layout="one_gemm", rows=13),
    Case("transposed_views", layout="transposed"),
    Case("expanded_views", layout="expanded", rows=13),
    Case("one_hot_weights", weights="one_hot", orders=(0, 1, 2)),
    Case("zero_weights", weights="some_zero", orders=(0, 1, 2), rows=14),
    Case("all_weights_zero_shared", weights="zero", orders=(0, 1), shared=True),
    Case("shared_projections", shared=True, orders=(0, 1, 2), rows=14),
    Case("exclusive", masking="exclusive", orders=(0, 1, 2), grid=(5, 5), rows=27),
    Case("exclusive_shared", masking="exclusive", shared=True, orders=(2, 1), layout="one_gemm"),
    Case("huge_logits", logits="huge", scale=1.0, orders=(0, 1, 2), grid=(5, 5), rows=40),
    Case("huge_logits_exclusive", logits="huge", scale=1.0, masking="exclusive", orders=(0, 1), grid=(5, 5), rows=40),
    Case("low_logits", logits="low", scale=1.0, orders=(2, 0), grid=(5, 3), rows=15),
    Case("low_logits_exclusive", logits="low", scale=1.0, masking="exclusive", orders=(2, 1), grid=(5, 3), rows=15),
    Case("negative_scale", scale=-0.5),
    Case("wide_image", grid=(3, 40), rows=50, orders=(0, 1, 3), heads=1),
    Case("many_patches", batch=1, grid=(18, 17), rows=70, orders=(0, 1, 4), heads=1, dim=24),
    Case("many_patches_and_rows", grid=(14, 14), rows=196, orders=(0, 1, 2), heads=1, dim=64),
    Case("many_patches_shared", batch=1, grid=(10, 13), rows=150, orders=(3, 0, 1), heads=1, dim=32, shared=True),
    Case("many_patches_exclusive", batch=1, grid=(20, 9), rows=180, orders=(1, 2), heads=1, masking="exclusive"),
    Case("many_rows", batch=1, grid=(9, 8), rows=190, orders=(0, 2), heads=1, dim=48),
    Case("bands_of_a_full_mask", batch=1, grid=(18, 17), rows=330, orders=(0,), heads=1, dim=24),
    Case("bands_of_windows_shared", batch=1, grid=(40, 8), rows=350, orders=(1, 3), heads=1, shared=True),
]

# what a call may ask for beyond the plain one
GENERAL_CASES = [
    Case("two_views", views=2, rows=13),
    Case("three_views_exclusive", views=3, rows=14, grid=(2, 5), masking="exclusive"),
    Case("views_shared", views=2, rows=15, shared=True, orders=(2, 0, 1), grid=(5, 4)),
    Case("centres", centres="own", rows=9),
    Case("centres_same", centres="same", rows=17, orders=(1, 2), grid=(5, 5)),
    Case("centres_exclusive", centres="own", rows=9, masking="exclusive", grid=(3, 20), orders=(1, 0)),
    Case("absent_keys", keys="some", rows=14),
    Case("absent_keys_exclusive", keys="some", rows=14, masking="exclusive", orders=(0, 1, (0, 0))),
    Case("absent_keys_shared", keys="some", rows=26, shared=True, orders=(0, 1, 2), grid=(5, 5)),
    Case("study_without_keys", keys="no_study", rows=14),
    Case("study_without_keys_exclusive", keys="no_study", rows=14, masking="exclusive"),
    Case("absent_view", views=2, keys="first_view", rows=14, grid=(4, 4), orders=(0, 1)),
    Case("row_weights", row_weights=True, rows=14),
    Case("row_weights_one_hot", row_weights=True, weights="one_hot", rows=14, orders=(0, 1, 2), grid=(5, 5)),
    Case("row_weights_some_zero", row_weights=True, weights="some_zero", rows=14, orders=(0, 1, 2), shared=True),
    Case("rectangles", orders=((0, 2), (2, 0), 0, (1, 2)), grid=(5, 6), rows=31),
    Case("one_key_windows", orders=((0, 0), 0), masking="exclusive", rows=14),
    Case("rectangles_on_a_wide_grid", orders=((0, 3), (2, 1), 1), grid=(4, 21), rows=90, heads=1),
    Case("rectangle_over_the_height", orders=((4, 1), (1, 30)), grid=(5, 18), rows=95, heads=1, shared=True),
    Case("all_at_once", views=2, centres="own", keys="some", row_weights=True, orders=((1, 0), 0, 1), rows=19),
    Case(
        "all_at_once_exclusive", views=3, centres="same", keys="some", row_weights=True, orders=((0, 2), 2), rows=19,
        grid=(4, 18), masking="exclusive", shared=True, layout="one_gemm",
    ),
    Case("huge_logits_absent_keys", logits="huge", scale=1.0, keys="some", views=2, orders=(0, 1), rows=14),
    Case("low_logits_absent_keys", logits="low", scale=1.0, keys="some", orders=(1, 0), rows=14),
    Case("low_logits_centres_exclusive", logits="low", scale=1.0, centres="own", masking="exclusive", orders=(1,)),
    Case("many_views", batch=1, views=5, grid=(7, 7), rows=49, orders=(0, 1, 2), heads=1, dim=64),
    Case("many_patches_general", batch=1, views=2, grid=(12, 19), rows=240, orders=(0, (2, 1)), heads=1, keys="some"),
]  # fmt: skip

# cases that keep their studies and heads in `made_small`: each family of kernels has some, full masks and windows, and every
# feature of a general call is in one of them; of `absent_view`, alpha's gradient cancels in one study and head
WHOLE = {
    *("fewer_rows_than_patches", "exclusive", "shared_projections", "exclusive_shared", "expanded_views"),
    *("all_at_once", "all_at_once_exclusive", "absent_view"),
}
# sizes of large cases that still have several blocks of rows and keys, of 16 to 128, and as many cycles of rows
SMALLER: dict[str, dict[str, Any]] = {
    "many_patches": {"grid": (12, 11)},
    "many_patches_exclusive": {"grid": (15, 9), "rows": 135},
    "bands_of_a_full_mask": {"grid": (12, 11), "rows": 140},
    "bands_of_windows_shared": {"grid": (17, 8), "rows": 140},
    "many_patches_general": {"grid": (7, 10), "rows": 75},
}


def made_small(case: Case, *, bands: bool = False) -> Case:
    """A case for one study and head, in SMALLER's size, where a program is slow; of `no_study`, one study of two has keys.

    bands: cases that reach a second band of rows, which the CPU kernels alone have, stay so large.
    """
    if case.name in WHOLE or (bands and case.name.startswith("bands_")):
        return case
    batch = 2 if case.keys == "no_study" else 1
    return replace(case, heads=1, batch=batch, **SMALLER.get(case.name, {}))


# training at batch 16, more and more patches, and the first layer on the paper's 21 neighbours; CPUs float32, GPUs bf16
BENCH_CASES = {
    "cpu": [
        Case("b2_h8_p2_21x49_d64", batch=2, rows=21, grid=(7, 7), orders=(0, 1), heads=8, dim=64),
        Case("b16_h12_p3_49x49_d64", batch=16, rows=49, grid=(7, 7), orders=(0, 1, 2), heads=12, dim=64),
        Case("b4_h12_p3_196x196_d64", batch=4, rows=196, grid=(14, 14), orders=(0, 1, 2), heads=12, dim=64),
        Case("b1_h12_p4_1024x1024_d64", batch=1, rows=1024, grid=(32, 32), orders=(0, 1, 2, 3), heads=12, dim=64),
        Case("b1_h8_p4_4096x4096_d64", batch=1, rows=4096, grid=(64, 64), orders=(0, 1, 2, 3), heads=8, dim=64),
    ],
    "cuda": [
        Case(
            f"b16_h8_p4_{side * side}x{side * side}_d64",
            batch=16,
            rows=side * side,
            grid=(side, side),
            orders=(0, 1, 2, 3),
            heads=8,
            dim=64,
        )
        for side in (7, 14, 32, 64)
    ],
}


@functools.cache
def drawn_centres(case: Case) -> Tensor | None:
    """(B or 1, N) patch numbers."""
    if case.centres == "none":
        return None
    shape = (1 if case.centres == "same" else case.batch, case.rows)
    return torch.randint(0, case.grid[0] * case.grid[1], shape, generator=torch.Generator().manual_seed(2))


@functools.cache
def drawn_keys(case: Case) -> Tensor | None:
    """(B, M) booleans, True where a key exists."""
    if case.keys == "all":
        return None
    exist = torch.rand(case.batch, case.patches, generator=torch.Generator().manual_seed(3)) < 0.6
    if case.keys == "no_study":
        exist[0] = False
    if case.keys == "first_view":
        exist[:] = torch.arange(case.patches) < case.patches // case.views
    return exist


@functools.cache
def dense_masks(case: Case) -> Tensor:
    """(P, B or 1, N, M) booleans, patch by patch from the words of Eq. 6."""
    height, width = case.grid
    centres = drawn_centres(case)
    if centres is None:
        centres = torch.tensor([[i % (height * width) for i in range(case.rows)]])
    masks = torch.zeros(len(case.orders), *centres.shape, case.patches, dtype=torch.bool)
    for j, order in enumerate(case.orders):
        down, across = order if isinstance(order, tuple) else (order, order)
        for b, numbers in enumerate(centres.tolist()):
            for i, centre in enumerate(numbers):
                y, x = divmod(centre, width)
                for key in range(case.patches):
                    v, u = divmod(key % (height * width), width)
                    masks[j, b, i, key] = order == 0 or (abs(v - y) <= down and abs(u - x) <= across)
    return masks


def dense_weights(q: Tensor, k: Tensor, case: Case, change: Tensor | float = 0.0) -> tuple[Tensor, Tensor]:
    """The masked logits of Eq. 5 and their softmax, (B, P, H, N, M) each; 0 where a row has no key. change: added to logits."""
    scale = case.dim**-0.5 if case.scale is None else case.scale
    masks = dense_masks(case).to(q.device).transpose(0, 1)[:, :, None]  # (B or 1, P, 1, N, M)
    logits = torch.einsum("bnphd,bmphd->bphnm", q * scale, k) + change
    masked = torch.where(masks, logits, -torch.inf if case.masking == "exclusive" else 0.0)  # (B, P, H, N, M)
    if (keys := drawn_keys(case)) is not None:
        masked = torch.where(keys.to(q.device)[:, None, None, None], masked, -torch.inf)
    empty = torch.isinf(masked).all(-1, keepdim=True)
    return masked, torch.softmax(torch.where(empty, 0.0, masked), dim=-1).masked_fill(empty, 0.0)


def dense(q: Tensor, k: Tensor, v: Tensor, alpha: Tensor, case: Case, change: Tensor | float = 0.0) -> Tensor:
    """Eq. 5 over all masks at once, every step in the dtype of q. change: added to the logits."""
    _, weights = dense_weights(q, k, case, change)
    alpha = (alpha if alpha.dim() == 3 else alpha[:, None]).to(q.dtype)  # (B, N or 1, P)
    weights = weights * alpha.transpose(1, 2)[:, :, None, :, None]
    return torch.einsum("bphnm,bmphd->bnhd", weights, v.expand(-1, -1, len(case.orders), -1, -1))


def dense_lse(q: Tensor, k: Tensor, case: Case) -> Tensor:
    """log sum_l exp(masked logits): (B, N, P, H)."""
    masked, _ = dense_weights(q, k, case)
    return torch.logsumexp(masked, dim=-1).permute(0, 3, 1, 2)

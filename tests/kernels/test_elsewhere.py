"""The operator against attention that others define: Swin's windows, NATTEN's neighbourhoods, FlexAttention."""

from __future__ import annotations

import functools
from collections.abc import Callable

import pytest
import torch
from diffrgen_kernels import routed_coattention
from kernel_backends import on_every_backend
from kernel_cases import Case
from kernel_errors import error, unsupported
from torch import Tensor
from torch.nn import functional
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

HEADS, DIM = 2, 8


def drawn(batch: int, rows: int, keys: int, masks: int = 1) -> list[Tensor]:
    """q, k, v and alpha in float64: (B, N or M, P, H, D), (B, P)."""
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(batch, n, masks, HEADS, DIM, generator=generator).double() for n in (rows, keys, keys))
    alpha = torch.softmax(torch.randn(batch, masks, generator=generator).double(), dim=-1) if masks > 1 else None
    return [q, k, v, torch.ones(batch, 1).double() if alpha is None else alpha]


def check(own: Callable[..., Tensor], other: Callable[..., Tensor], inputs: list[Tensor], device: str) -> None:
    """The same output and gradients: `own` in float32 on the device, `other` in float64."""
    narrow = [x.to(device, torch.float32).requires_grad_() for x in inputs]
    wide = [x.clone().requires_grad_() for x in inputs]
    out, truth = own(*narrow), other(*wide)
    grad = torch.randn(truth.shape, generator=torch.Generator().manual_seed(1))
    found = [out, *torch.autograd.grad(out, narrow, grad.to(device))]
    exact = [truth, *torch.autograd.grad(truth, wide, grad.double())]
    for value, true in zip(found, exact, strict=True):
        assert error(value.detach().cpu(), true.detach()) <= 2e-6


def operator(case: Case, backend: str, device: str, **options: object) -> Callable[..., Tensor]:
    """The operator with exclusive masking, or a skip where the backend lacks what the case uses."""
    if (reason := unsupported(case, backend, device)) is not None:
        pytest.skip(reason)
    return functools.partial(routed_coattention, masking="exclusive", backend=backend, **options)


def swin_attention(
    q: Tensor, k: Tensor, v: Tensor, alpha: Tensor, *, grid: tuple[int, int], size: int, exist: Tensor
) -> Tensor:
    """Attention inside each of the size x size windows that tile the grid, as Swin partitions it, without a bias."""

    def partition(x: Tensor) -> Tensor:  # (B, m, 1, H, D) -> (B, windows, H, size * size, D)
        x = x.unflatten(1, (grid[0] // size, size, grid[1] // size, size)).squeeze(5)
        return x.permute(0, 1, 3, 5, 2, 4, 6).flatten(4, 5).flatten(1, 2)

    keys = partition(exist.view(1, -1, 1, 1, 1)).squeeze(-1).unsqueeze(-2)  # (1, windows, 1, 1, size * size)
    heads = functional.scaled_dot_product_attention(partition(q), partition(k), partition(v), attn_mask=keys)
    heads = heads.unflatten(1, (grid[0] // size, grid[1] // size)).unflatten(4, (size, size))
    return heads.permute(0, 1, 4, 2, 5, 3, 6).flatten(1, 4) * alpha[:, :, None, None]


@on_every_backend
@pytest.mark.parametrize(("grid", "real"), [((6, 9), (6, 9)), ((9, 9), (7, 8))], ids=["tiled", "padded"])
def test_swin_windows(grid: tuple[int, int], real: tuple[int, int], backend: str, device: str) -> None:
    """Windows of odd size that tile the grid: each row's centre is the middle of its window; padding is absent keys."""
    size, patches = 3, grid[0] * grid[1]
    y, x = torch.arange(patches) // grid[1], torch.arange(patches) % grid[1]
    centres = (y // size * size + size // 2) * grid[1] + x // size * size + size // 2
    exist = (y < real[0]) & (x < real[1])
    case = Case("swin", centres="same", keys="some", masking="exclusive")
    options = {"grid": grid, "orders": (size // 2,), "centres": centres[None].to(device)}
    key_mask = exist.expand(2, -1).to(device)
    own = operator(case, backend, device, **options, key_mask=key_mask)
    other = functools.partial(swin_attention, grid=grid, size=size, exist=exist)
    check(own, other, drawn(2, patches, patches), device)


def natten_attention(
    q: Tensor, k: Tensor, v: Tensor, alpha: Tensor, *, grid: tuple[int, int], kernel: tuple[int, int]
) -> Tensor:
    """Neighbourhood attention as NATTEN defines it: always kernel[0] x kernel[1] neighbours, moved inwards at borders."""
    rows = []
    for y in range(grid[0]):
        for x in range(grid[1]):
            top = min(max(y - kernel[0] // 2, 0), grid[0] - kernel[0])
            left = min(max(x - kernel[1] // 2, 0), grid[1] - kernel[1])
            near = [(top + i) * grid[1] + left + j for i in range(kernel[0]) for j in range(kernel[1])]
            query = q[:, y * grid[1] + x, 0]  # (B, H, D)
            logits = torch.einsum("bhd,bkhd->bhk", query, k[:, near, 0]) * DIM**-0.5
            rows.append(torch.einsum("bhk,bkhd->bhd", logits.softmax(-1), v[:, near, 0]))
    return torch.stack(rows, dim=1) * alpha[:, :, None, None]


@on_every_backend
def test_natten_neighbourhoods_of_interior_rows(backend: str, device: str) -> None:
    """Away from the borders a window is NATTEN's neighbourhood of kernel size 2 s + 1."""
    grid, order = (7, 9), 2
    inside = [y * grid[1] + x for y in range(order, grid[0] - order) for x in range(order, grid[1] - order)]
    own = operator(Case("natten", masking="exclusive"), backend, device, grid=grid, orders=(order,))
    other = functools.partial(natten_attention, grid=grid, kernel=(2 * order + 1, 2 * order + 1))
    check(lambda *x: own(*x)[:, inside], lambda *x: other(*x)[:, inside], drawn(2, 63, 63), device)


@on_every_backend
def test_natten_neighbourhoods_of_all_rows(backend: str, device: str) -> None:
    """At the borders NATTEN moves its neighbourhood inwards: so do centres that keep that far from the border."""
    grid, kernel = (6, 18), (3, 7)
    y, x = (torch.arange(108) // grid[1]).clamp(1, 4), (torch.arange(108) % grid[1]).clamp(3, 14)
    case = Case("natten", centres="same", orders=((1, 3),), masking="exclusive")
    centres = (y * grid[1] + x)[None].to(device)
    own = operator(case, backend, device, grid=grid, orders=((1, 3),), centres=centres)
    check(own, functools.partial(natten_attention, grid=grid, kernel=kernel), drawn(1, 108, 108), device)


GRID, ORDERS = (5, 18), (0, 1, 2)


def in_window(order: int, row: Tensor, key: Tensor) -> Tensor:
    """FlexAttention's mask of a window, by index arithmetic."""
    patch = row % (GRID[0] * GRID[1])
    down, across = patch // GRID[1] - key // GRID[1], patch % GRID[1] - key % GRID[1]
    return (order == 0) | ((down.abs() <= order) & (across.abs() <= order))


def flex(masking: str, q: Tensor, k: Tensor, v: Tensor, alpha: Tensor) -> Tensor:
    """One call of flex_attention a mask, summed with their weights."""
    out = torch.zeros((), dtype=q.dtype)
    for j, order in enumerate(ORDERS):
        q_j, k_j, v_j = (x[:, :, j].transpose(1, 2) for x in (q, k, v))
        if masking == "exclusive":
            mask = create_block_mask(
                lambda b, h, row, key, order=order: in_window(order, row, key),
                None,
                None,
                q.shape[1],
                k.shape[1],
                device="cpu",
            )
            head = flex_attention(q_j, k_j, v_j, block_mask=mask)
        else:
            score = lambda s, b, h, row, key, order=order: torch.where(in_window(order, row, key), s, 0.0)  # noqa: E731
            head = flex_attention(q_j, k_j, v_j, score_mod=score)
        out = out + alpha[:, j, None, None, None] * head.transpose(1, 2)
    return out


@on_every_backend
@pytest.mark.parametrize("masking", ["exclusive", "multiplicative"])
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_flex_attention(masking: str, backend: str, device: str) -> None:
    """The same masks as a block mask, and as a score_mod that sets logits to 0; more rows than patches.

    FlexAttention refuses gradients on a CPU: ours are held to central differences of its float64 output, along a
    random direction in each input.
    """
    own = functools.partial(routed_coattention, grid=GRID, orders=ORDERS, masking=masking, backend=backend)
    inputs = drawn(2, 100, 90, masks=3)
    narrow = [x.to(device, torch.float32).requires_grad_() for x in inputs]
    out, truth = own(*narrow), flex(masking, *inputs)
    assert error(out.detach().cpu(), truth) <= 2e-6
    generator = torch.Generator().manual_seed(1)
    grad = torch.randn(truth.shape, generator=generator)
    for i, found in enumerate(torch.autograd.grad(out, narrow, grad.to(device))):
        direction = torch.randn(inputs[i].shape, generator=generator).double()
        ahead, behind = ([*inputs[:i], inputs[i] + step * direction, *inputs[i + 1 :]] for step in (1e-5, -1e-5))
        slope = ((flex(masking, *ahead) - flex(masking, *behind)) * grad).sum() / 2e-5
        assert abs((found.cpu() * direction).sum() - slope) <= 2e-6 * found.norm().item() * direction.norm()

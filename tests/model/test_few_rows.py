"""Few rows attend to patches that are not projected: the same values and gradients as Eq. 5's operator, in float64."""

from __future__ import annotations

import pytest
import torch
from diffrgen_kernels import routed_coattention_reference
from tiny_network import random_batch, tiny_config, tiny_network
from torch import Tensor

from diffrgen.model import few_rows
from diffrgen.model.fam import FlexiRouteAggregation

WIDTH, BATCH = 16, 3
RESULTS = ("z", "patches", "key", "value", "query", "router")


def drawn(rows: int, grid: tuple[int, int], views: int, keys: str) -> tuple[Tensor, Tensor, Tensor | None]:
    """Tokens, patches and which of them exist: all, most, or so few that windows are without any."""
    generator = torch.Generator().manual_seed(4)
    z, patches = (
        torch.randn(BATCH, count, WIDTH, generator=generator, dtype=torch.float64, requires_grad=True)
        for count in (rows, views * grid[0] * grid[1])
    )
    if keys == "all":
        return z, patches, None
    mask = torch.rand(BATCH, patches.shape[1], generator=generator) < {"most": 0.7, "few": 0.15}[keys]
    return z, patches, mask


def results(fam: FlexiRouteAggregation, z: Tensor, patches: Tensor, grid: tuple[int, int], mask: Tensor | None,
            rows: int | None) -> list[Tensor]:  # fmt: skip
    """Z_K and the gradients of the inputs and of the second layer's weights."""
    layer = fam.layers[1].mhcar
    routes = fam.route(patches, grid, mask, rows)
    assert all((route.key is None) == (rows is not None) for route in routes)
    out = fam(z, routes, torch.ones(z.shape[:2], dtype=torch.bool))
    weights = [part.weight for part in (layer.key, layer.value, layer.query, layer.router.mlp[2])]
    grad = torch.randn(out.shape, generator=torch.Generator().manual_seed(5), dtype=out.dtype)
    return [out.detach(), *torch.autograd.grad(out, [z, patches, *weights], grad)]


@pytest.mark.parametrize("masking", ["multiplicative", "exclusive"])
@pytest.mark.parametrize("row_routing", [False, True], ids=["", "row_routing"])
@pytest.mark.parametrize(
    ("rows", "grid", "views", "keys"),
    [
        (1, (5, 6), 1, "all"),
        (4, (5, 6), 1, "all"),
        (7, (3, 9), 1, "most"),
        (9, (5, 4), 2, "most"),
        (9, (4, 4), 2, "few"),
        (14, (3, 2), 2, "all"),
    ],
)
def test_values_and_gradients_are_those_of_the_operator(
    rows, grid, views, keys, masking, row_routing, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(few_rows, "MIN_PATCHES", 1)
    monkeypatch.setattr("diffrgen.model.coattention.routed_coattention", by_the_reference)
    torch.manual_seed(0)
    config = tiny_config(masks_per_layer=(2, 3), masking=masking, row_routing=row_routing)
    fam = FlexiRouteAggregation(config).double().eval()
    for parameter in fam.parameters():
        parameter.data *= 1.5  # logits and weights away from uniform
    z, patches, mask = drawn(rows, grid, views, keys)
    expected = results(fam, z, patches, grid, mask, None)
    found = results(fam, z, patches, grid, mask, 1)
    for name, value, true in zip(("out", *RESULTS), found, expected, strict=True):
        torch.testing.assert_close(value, true, rtol=1e-10, atol=1e-11, msg=lambda text, name=name: f"{name}: {text}")


def by_the_reference(*tensors: Tensor, backend: str, **options) -> Tensor:
    """Eq. 5 line by line, whatever the backend."""
    assert backend == "auto"
    return routed_coattention_reference(*tensors, **options)


@pytest.mark.parametrize(
    ("rows", "patches", "backend", "expected"),
    [(31, 256, "auto", True), (32, 256, "auto", False), (31, 255, "auto", False), (31, 256, "native", False)],
)
def test_few_rows_are_chosen_by_shape_and_never_for_a_named_backend(rows, patches, backend, expected):
    image = few_rows.Image(torch.empty(1, patches, 256), (1, patches), None)
    assert few_rows.few_rows(rows, 8, image, backend) is expected


@pytest.mark.parametrize("changes", [{}, {"share_fam": False}, {"finding_queries": True}, {"difference_metrics": ()}])
def test_the_network_counts_all_rows_that_attend_to_an_image(changes, monkeypatch: pytest.MonkeyPatch):
    """4 similar rows, 4 differing ones unless another module takes them or there are none, and those of the findings."""
    seen = []
    monkeypatch.setattr("diffrgen.model.coattention.few_rows", lambda rows, *_: bool(seen.append(rows)))
    network = tiny_network(**changes)
    network(**random_batch())
    rows = network.config.neighbours
    expected = {"share_fam": [rows] * 4, "finding_queries": [2 * rows + network.config.findings] * 2,
                "difference_metrics": [rows] * 2}  # fmt: skip
    assert seen == expected.get(next(iter(changes), ""), [2 * rows] * 2)


def test_sixteen_bits_err_no_more_than_the_operators(monkeypatch: pytest.MonkeyPatch):
    """Under autocast, against the float64 module."""
    monkeypatch.setattr(few_rows, "MIN_PATCHES", 1)
    torch.manual_seed(0)
    fam = FlexiRouteAggregation(tiny_config(masks_per_layer=(2, 3))).eval()
    z, patches, _ = drawn(4, (12, 12), 1, "all")
    real = torch.ones(z.shape[:2], dtype=torch.bool)

    def error(rows: int | None) -> float:
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            found = fam(z.float(), fam.route(patches.float(), (12, 12), None, rows), real)
        return (found.double() - exact).norm().item()

    with torch.no_grad():
        wide = FlexiRouteAggregation(tiny_config(masks_per_layer=(2, 3))).double().eval()
        wide.load_state_dict({name: x.double() for name, x in fam.state_dict().items()})
        exact = wide(z, wide.route(patches, (12, 12)), real)
    assert error(4) <= 1.5 * error(None)

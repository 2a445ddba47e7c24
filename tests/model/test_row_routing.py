"""Windows round where a row looks, and weights of each row: by loops in float64, and through the network."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from tiny_network import NEIGHBOURS, random_batch, tiny_config, tiny_network

from diffrgen.model import DiffRGenForReportGeneration, StudyInputs
from diffrgen.model.coattention import CoAttentionRouting

GRID, MASKS, HEADS, WIDTH = (3, 4), 3, 2, 16


def softmax(x):
    e = np.exp(x - x.max())
    return e / e.sum()


def by_loops(layer, z, patches, temperature, *, centres, row_routing):
    """MHCAR with alpha and windows of each row, one row, head and patch at a time."""
    weights = {name: p.detach().numpy() for name, p in layer.named_parameters()}
    q, k, v = (
        (x @ weights[f"{name}.weight"].T).reshape(*x.shape[:2], MASKS, HEADS, WIDTH // HEADS)
        for name, x in (("query", z), ("key", patches), ("value", patches))
    )
    out, found = np.zeros(z.shape), np.zeros(z.shape[:2], dtype=int)
    for b in range(len(z)):
        for i in range(z.shape[1]):
            image = patches[b].mean(0) + (z[b, i] if row_routing else 0.0)
            hidden = np.maximum(weights["router.mlp.0.weight"] @ image + weights["router.mlp.0.bias"], 0)
            alpha = softmax((weights["router.mlp.2.weight"] @ hidden + weights["router.mlp.2.bias"]) / temperature)
            logits = np.einsum("phd,lphd->phl", q[b, i], k[b]) / math.sqrt(WIDTH // HEADS)
            looks = np.mean([softmax(row) for row in logits[0]], axis=0)
            found[b, i] = looks.argmax() if centres == "attention" else i % len(patches[b])
            centre = divmod(found[b, i], GRID[1])
            heads = np.zeros((HEADS, WIDTH // HEADS))
            for mask in range(MASKS):
                inside = [
                    mask == 0 or max(abs(patch // GRID[1] - centre[0]), abs(patch % GRID[1] - centre[1])) <= mask
                    for patch in range(len(patches[b]))
                ]
                for head in range(HEADS):
                    heads[head] += alpha[mask] * softmax(logits[mask, head] * inside) @ v[b, :, mask, head]
            out[b, i] = weights["output.weight"] @ heads.ravel() + weights["output.bias"]
    return out, found


@pytest.mark.parametrize("row_routing", [False, True])
@pytest.mark.parametrize("centres", ["rank", "attention"])
def test_mhcar_against_loops(centres, row_routing):
    torch.manual_seed(0)
    config = tiny_config(centres=centres, row_routing=row_routing, operator_backend="reference")
    layer = CoAttentionRouting(config, MASKS).double().eval()
    z, patches = torch.randn(2, 7, WIDTH).double(), 2 * torch.randn(2, 12, WIDTH).double()
    route = layer.of_rows(z, layer.route(patches, GRID, torch.tensor(0.5)))
    arguments = {"centres": centres, "row_routing": row_routing}
    expected, places = by_loops(layer, z.numpy(), patches.numpy(), 0.5, **arguments)
    np.testing.assert_allclose(layer(z, route).detach().numpy(), expected, rtol=1e-9, atol=1e-9)
    assert (route.centres is None) == (centres == "rank")
    if centres == "attention":
        assert route.centres.tolist() == places.tolist()
        assert len(set(places.ravel())) > 3


def test_centres_are_of_the_sum_of_the_views():
    torch.manual_seed(0)
    layer = CoAttentionRouting(tiny_config(centres="attention", operator_backend="reference"), 2).double().eval()
    z, patches = torch.randn(2, 5, WIDTH).double(), 2 * torch.randn(2, 24, WIDTH).double()
    mask = torch.tensor([[True] * 24, [True] * 12 + [False] * 12])
    route = layer.of_rows(z, layer.route(patches, GRID, torch.tensor(1.0), mask))
    weights = layer.attention(z, route)
    assert not weights[1, :, 12:].any()
    assert route.centres.tolist() == (weights[..., :12] + weights[..., 12:]).argmax(-1).tolist()


@pytest.mark.parametrize("changes", [{"centres": "attention"}, {"row_routing": True}, {"share_fam": False, "row_routing": True}])
def test_the_network_trains_generates_and_reports_the_mean_weights(changes):
    network, batch = tiny_network(finding_queries=True, **changes), random_batch()
    batch["retrieved_mask"][1, 3:] = False
    with torch.no_grad():
        study = network.encode(StudyInputs.of(batch))
    assert [tuple(alpha.shape) for alpha in study.routing] == [(3, 2), (3, 3)] * (2 if "share_fam" in changes else 1)
    for alpha in study.routing:
        torch.testing.assert_close(alpha.sum(1), torch.ones(3, dtype=alpha.dtype))
    inputs = StudyInputs.of(batch)
    written = [network.generate(inputs, num_beams=2, max_new_tokens=6, use_cache=cache) for cache in (True, False)]
    assert torch.equal(*written)
    network.train()(**batch).loss.backward()
    silent = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert silent == []


def test_absent_rows_do_not_count_in_the_weights_of_a_study():
    network, batch = tiny_network(row_routing=True), random_batch(size=2)
    batch["retrieved_mask"][:, NEIGHBOURS - 2 :] = False
    other = {**batch, "retrieved": batch["retrieved"].clone()}
    other["retrieved"][:, NEIGHBOURS - 2 :] = 9.0
    with torch.no_grad():
        one, two = (network.encode(StudyInputs.of(given)).routing for given in (batch, other))
    torch.testing.assert_close(one, two)


def test_configurations_of_version_0_1_have_the_papers_windows_and_weights(tmp_path):
    tiny_network().save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    stored = json.loads(path.read_text())
    del stored["centres"], stored["row_routing"]
    path.write_text(json.dumps(stored))
    config = DiffRGenForReportGeneration.from_pretrained(tmp_path).config
    assert (config.centres, config.row_routing) == ("rank", False)

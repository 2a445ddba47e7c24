"""Equations 1 to 9 of the paper against hand-computed values and against float64 NumPy written from the equations."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from tiny_network import tiny_config

from diffrgen.labels import FINDINGS, NO_FINDING, State
from diffrgen.model.coattention import CoAttentionRouting
from diffrgen.model.contrast import shared_disease, supervised_contrast
from diffrgen.model.difference import ContentDifference, FeatureDifference, difference_metrics
from diffrgen.model.disease import adapted_class_prior, initial_class_prior, logit_adjusted_loss
from diffrgen.model.fam import DynamicRoutingAttention, FlexiRouteAggregation
from diffrgen.model.router import MIN_TEMPERATURE, gumbel_softmax


def test_eq1_metrics_by_hand():
    z = torch.tensor([[[3.0, 0.0], [0.0, 4.0], [0.0, 0.0]]])
    f = torch.tensor([[0.0, 4.0]])
    got = difference_metrics(z, f, ("l2", "cosine", "dot"))
    expected = torch.tensor([[[5.0, 0.0, 0.0], [0.0, 1.0, 16.0], [4.0, 0.0, 0.0]]])
    torch.testing.assert_close(got, expected)
    torch.testing.assert_close(difference_metrics(z, f, ("dot", "l2")), expected[..., [2, 0]])


def test_eq1_module_is_mlp_of_standardised_metrics():
    rng = np.random.default_rng(0)
    module = FeatureDifference(tiny_config(difference="scalars")).double().train()
    z, patches = rng.normal(size=(2, 5, 16)), rng.normal(size=(2, 3, 16))
    got = module(torch.tensor(z), torch.tensor(patches)).detach().numpy()
    f = patches.mean(1)
    norms = np.linalg.norm(z, axis=-1) * np.linalg.norm(f, axis=-1)[:, None]
    dot = np.einsum("bnd,bd->bn", z, f)
    metrics = np.stack([np.linalg.norm(z - f[:, None], axis=-1), dot / norms, dot], -1)
    mean, var = metrics.mean((0, 1)), metrics.var((0, 1))
    first, second = module.mlp[0], module.mlp[2]
    weights = [p.detach().numpy() for p in (first.weight, first.bias, second.weight, second.bias)]
    hidden = np.maximum((metrics - mean) / np.sqrt(var + 1e-5) @ weights[0].T + weights[1], 0)
    np.testing.assert_allclose(got, hidden @ weights[2].T + weights[3], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("metrics", [("l2",), ("cosine",), ("dot",), ("l2", "dot")])
def test_eq1_every_subset_of_metrics_still_varies(metrics):
    module = FeatureDifference(tiny_config(difference="scalars", difference_metrics=metrics)).train()
    torch.manual_seed(0)
    assert module(torch.randn(2, 5, 16), torch.randn(2, 3, 16)).std(dim=(0, 1)).max() > 1e-3


def test_content_of_d_against_loops():
    rng = np.random.default_rng(1)
    module = ContentDifference(tiny_config()).double()
    z, patches = rng.normal(size=(2, 5, 16)), rng.normal(size=(2, 6, 16))
    mask = np.array([[True] * 6, [True, False, True, True, False, False]])
    weights = {name: p.detach().numpy() for name, p in module.named_parameters()}
    expected = np.empty((2, 5, 16))
    for b in range(2):
        present = patches[b][mask[b]]
        key, value = present @ weights["key.weight"].T, present @ weights["value.weight"].T + weights["value.bias"]
        for n in range(5):
            query = weights["query.weight"] @ z[b, n]
            seen = np.concatenate(
                [softmax(key[:, h] @ query[h] / math.sqrt(8)) @ value[:, h] for h in (slice(0, 8), slice(8, 16))]
            )
            row = np.concatenate([z[b, n] - seen, z[b, n] * seen, seen])
            hidden = np.maximum(weights["mlp.0.weight"] @ row + weights["mlp.0.bias"], 0)
            expected[b, n] = weights["mlp.2.weight"] @ hidden + weights["mlp.2.bias"]
    got = module(*map(torch.tensor, (z, patches, mask))).detach().numpy()
    np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-12)


def test_content_is_added_to_eq_1_and_absent_patches_are_seen_by_neither():
    torch.manual_seed(0)
    module = FeatureDifference(tiny_config()).double().eval()
    z, patches = torch.randn(2, 5, 16).double(), torch.randn(2, 6, 16).double()
    mask = torch.tensor([[True] * 6, [True] * 4 + [False] * 2])
    alone = FeatureDifference(tiny_config(difference="scalars")).double().eval()
    alone.load_state_dict(module.state_dict(), strict=False)
    for form in ("forward", "of_prior"):
        whole = getattr(module, form)(z, patches, mask)
        torch.testing.assert_close(whole, getattr(alone, form)(z, patches, mask) + module.content(z, patches, mask))
        torch.testing.assert_close(whole[1:], getattr(module, form)(z[1:], patches[1:, :4]))


def layer_norm(x: np.ndarray, eps: float = 1e-5) -> np.ndarray:
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + eps)


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def window(order: int, row: int, grid: tuple[int, int]) -> np.ndarray:
    """One row of A^s, cell by cell."""
    height, width = grid
    y, x = divmod(row % (height * width), width)
    cells = [(i, j) for i in range(height) for j in range(width)]
    return np.array([float(order == 0 or max(abs(i - y), abs(j - x)) <= order) for i, j in cells])


def mhcar_by_loops(layer: CoAttentionRouting, z, patches, alpha, grid) -> np.ndarray:
    """Eq. 4-5, one study, head, mask and token at a time."""
    sets, heads, width = layer.split
    masks = len(layer.orders)
    projections = (layer.query, layer.key, layer.value)
    wq, wk, wv = (w.weight.detach().numpy().reshape(sets, heads, width, -1) for w in projections)
    out = np.zeros((*z.shape[:2], heads * width))
    for b in range(len(z)):
        for i in range(heads):
            for j in range(masks):
                s = j if sets > 1 else 0
                q, k, v = z[b] @ wq[s, i].T, patches[b] @ wk[s, i].T, patches[b] @ wv[s, i].T
                for row in range(z.shape[1]):
                    logits = (k @ q[row]) / math.sqrt(width) * window(layer.orders[j], row, grid)
                    out[b, row, i * width : (i + 1) * width] += alpha[b, j] * softmax(logits) @ v
    return out @ layer.output.weight.detach().numpy().T + layer.output.bias.detach().numpy()


@pytest.mark.parametrize("share", [False, True])
@pytest.mark.parametrize("tokens", [5, 23])
def test_eq4_5_mhcar_against_loops(share, tokens):
    torch.manual_seed(0)
    layer = CoAttentionRouting(tiny_config(share_projections=share, operator_backend="reference"), 3).double().eval()
    z, patches = torch.randn(2, tokens, 16, dtype=torch.float64), torch.randn(2, 12, 16, dtype=torch.float64)
    route = layer.route(patches, (3, 4), torch.tensor(0.7))
    expected = mhcar_by_loops(layer, z.numpy(), patches.numpy(), route.alpha.detach().numpy(), (3, 4))
    np.testing.assert_allclose(layer(z, route).detach().numpy(), expected, rtol=1e-9, atol=1e-9)


def test_eq3_layer_is_post_norm_with_three_residuals():
    torch.manual_seed(0)
    layer = DynamicRoutingAttention(tiny_config(operator_backend="reference"), 2).double().eval()
    z, patches = torch.randn(1, 5, 16, dtype=torch.float64), torch.randn(1, 12, 16, dtype=torch.float64)
    route = layer.mhcar.route(patches, (3, 4), torch.tensor(1.0))
    mask = torch.ones(1, 5, dtype=torch.bool)
    alpha = route.alpha.detach().numpy()
    weights = {name: p.detach().numpy() for name, p in layer.named_parameters()}

    routed = layer_norm(mhcar_by_loops(layer.mhcar, z.numpy(), patches.numpy(), alpha, (3, 4)) + z.numpy())
    q, k, v = np.split(routed[0] @ weights["mha.qkv.weight"].T + weights["mha.qkv.bias"], 3, axis=-1)
    heads = [softmax(q[:, h] @ k[:, h].T / math.sqrt(8)) @ v[:, h] for h in (slice(0, 8), slice(8, 16))]
    mha = np.concatenate(heads, -1) @ weights["mha.output.weight"].T + weights["mha.output.bias"]
    attended = layer_norm(mha[None] + routed)
    hidden = attended @ weights["ffn.0.weight"].T + weights["ffn.0.bias"]
    gelu = hidden * 0.5 * (1 + np.vectorize(math.erf)(hidden / math.sqrt(2)))
    expected = layer_norm(gelu @ weights["ffn.2.weight"].T + weights["ffn.2.bias"] + attended)
    np.testing.assert_allclose(layer(z, route, mask).detach().numpy(), expected, rtol=1e-7, atol=1e-7)


def test_eq2_layers_follow_each_other_and_absent_tokens_change_nothing():
    torch.manual_seed(0)
    fam = FlexiRouteAggregation(tiny_config()).eval()
    z, patches = torch.randn(2, 5, 16), torch.randn(2, 12, 16)
    routes = fam.route(patches, (3, 4))
    assert [route.alpha.shape[1] for route in routes] == [2, 3]
    mask = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    by_hand = fam.layers[1](fam.layers[0](z, routes[0], mask), routes[1], mask)
    torch.testing.assert_close(fam(z, routes, mask), by_hand)
    other = z.clone()
    other[1, 3:] = 100.0
    torch.testing.assert_close(fam(other, routes, mask)[1, :3], by_hand[1, :3])


def test_eq7_weights_without_noise_are_softmax_at_the_temperature():
    logits = torch.tensor([[1.0, 2.0, 4.0]])
    got = gumbel_softmax(logits, torch.tensor(2.0), noise=False, straight_through=False)
    e = [math.exp(v / 2.0) for v in (1.0, 2.0, 4.0)]
    torch.testing.assert_close(got, torch.tensor([[v / sum(e) for v in e]]))


def test_eq7_gumbel_noise_samples_the_softmax():
    """Gumbel-max: the argmax of logits plus Gumbel noise is a sample of softmax(logits), at any temperature."""
    torch.manual_seed(0)
    logits = torch.tensor([0.0, 1.0, -1.0]).expand(40_000, 3)
    soft = gumbel_softmax(logits, torch.tensor(0.3), noise=True, straight_through=False)
    hard = gumbel_softmax(logits, torch.tensor(0.3), noise=True, straight_through=True)
    expected = softmax(np.array([0.0, 1.0, -1.0]))
    torch.testing.assert_close(soft.sum(-1), torch.ones(40_000))
    for weights in (torch.nn.functional.one_hot(soft.argmax(-1), 3).float(), hard):
        np.testing.assert_allclose(weights.mean(0).numpy(), expected, atol=0.01)
    assert set(hard.unique().tolist()) <= {0.0, 1.0}


def test_eq7_straight_through_has_the_soft_gradient():
    logits = torch.tensor([[0.3, -0.2, 0.1]], dtype=torch.float32, requires_grad=True)
    target = torch.tensor([[1.0, -2.0, 3.0]])
    gradients = []
    for straight_through in (False, True):
        weights = gumbel_softmax(logits, torch.tensor(0.5), noise=False, straight_through=straight_through)
        gradients.append(torch.autograd.grad((weights * target).sum(), logits)[0])
    torch.testing.assert_close(*gradients)


def test_temperature_never_falls_below_its_floor():
    fam = FlexiRouteAggregation(tiny_config())
    fam.set_temperature(1e-9)
    assert fam.temperature.item() == pytest.approx(MIN_TEMPERATURE)


def test_eq8_shared_disease_ignores_no_finding():
    states = torch.zeros(3, len(FINDINGS), dtype=torch.int64)
    states[:, NO_FINDING] = State.POSITIVE
    states[0, 1] = states[1, 1] = State.POSITIVE
    states[2, 1] = State.UNCERTAIN
    assert shared_disease(states, states).tolist() == [[True, True, False], [True, True, False], [False] * 3]


def contrast_by_loops(images, similar, difference, same, tau, form):
    """Eq. 8 one term at a time."""

    def f(x, y):
        return float(np.dot(x, y) / np.linalg.norm(x) / np.linalg.norm(y) / tau)

    total = 0.0
    for i in range(len(images)):
        positive = [similar[i]] + [x[j] for j in range(len(images)) if j != i and same[i][j] for x in (similar, images)]
        negative = list(difference)
        negative += [x[j] for j in range(len(images)) if j != i and not same[i][j] for x in (similar, images)]
        if form == "printed":
            total += -math.log(math.exp(f(images[i], similar[i])) / sum(math.exp(f(images[i], n)) for n in negative))
        else:
            whole = sum(math.exp(f(images[i], a)) for a in positive + negative)
            total += -sum(math.log(math.exp(f(images[i], p)) / whole) for p in positive) / len(positive)
    return total / len(images)


@pytest.mark.parametrize("form", ["supervised", "printed"])
def test_eq8_against_loops(form):
    rng = np.random.default_rng(3)
    images, similar, difference = rng.normal(size=(3, 4, 6))
    same = np.array([[1, 1, 0, 0], [1, 1, 0, 1], [0, 0, 0, 0], [0, 1, 0, 1]], dtype=bool)
    tensors = [torch.tensor(x) for x in (images, similar, difference, same)]
    got = supervised_contrast(*tensors, temperature=0.5, form=form).item()
    assert got == pytest.approx(contrast_by_loops(images, similar, difference, same, 0.5, form), rel=1e-9)


def test_eq8_by_hand():
    """One study, S equal to the image, D orthogonal to it, temperature 1: -log(e / (e + 1)); printed: -log(e / 1)."""
    image, difference = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    same = torch.tensor([[False]])
    supervised = supervised_contrast(image, image, difference, same, temperature=1.0)
    printed = supervised_contrast(image, image, difference, same, temperature=1.0, form="printed")
    assert supervised.item() == pytest.approx(math.log(1 + math.exp(-1)), abs=1e-6)
    assert printed.item() == pytest.approx(-1.0, abs=1e-6)


def test_eq8_falls_when_similar_aligns_and_difference_departs():
    torch.manual_seed(0)
    image, noise = torch.randn(4, 8), torch.randn(4, 8)
    same = torch.eye(4, dtype=torch.bool)
    losses = [
        supervised_contrast(image, image + (1 - t) * noise, -t * image + (1 - t) * noise, same, temperature=0.1).item()
        for t in (0.0, 0.5, 0.9)
    ]
    assert losses[0] > losses[1] > losses[2]


def test_eq8_gradient_is_finite_without_any_shared_disease():
    torch.manual_seed(0)
    features = [torch.randn(3, 5, requires_grad=True) for _ in range(3)]
    loss = supervised_contrast(*features, torch.zeros(3, 3, dtype=torch.bool), temperature=0.1)
    for gradient in torch.autograd.grad(loss, features):
        assert gradient.isfinite().all()
        assert gradient.abs().sum() > 0


def test_eq9_by_hand():
    """All logits 0 and pi = 1/2: a positive costs -log(.5 / 3.5) = log 7, any other state log 3.5."""
    logits, prior = torch.zeros(1, 4, 1), torch.tensor([0.5])
    assert logit_adjusted_loss(logits, torch.tensor([[1]]), prior).item() == pytest.approx(math.log(7.0))
    assert logit_adjusted_loss(logits, torch.tensor([[2]]), prior).item() == pytest.approx(math.log(3.5))
    assert logit_adjusted_loss(logits, torch.tensor([[1]]), None).item() == pytest.approx(math.log(4.0))


def test_eq9_against_float64():
    rng = np.random.default_rng(0)
    logits, states, prior = rng.normal(size=(5, 4, 3)), rng.integers(0, 4, (5, 3)), np.array([1.0, 0.1, 0.01])
    expected = 0.0
    for b in range(5):
        for c in range(3):
            shifted = np.exp(logits[b, :, c] + np.array([0, math.log(prior[c]), 0, 0]))
            expected -= math.log(shifted[states[b, c]] / shifted.sum()) / 15
    got = logit_adjusted_loss(torch.tensor(logits), torch.tensor(states), torch.tensor(prior))
    assert got.item() == pytest.approx(expected, rel=1e-5)


def test_prior_starts_as_relative_frequency_and_adapts_to_validation():
    states = torch.tensor([[1, 1, 0], [1, 2, 0], [1, 3, 0], [1, 1, 2]])
    torch.testing.assert_close(initial_class_prior(states), torch.tensor([1.0, 0.5, 1e-4]))
    positive = torch.tensor([[0.8, 0.2, 0.9], [0.6, 0.9, 0.9], [0.4, 0.9, 0.9], [0.2, 0.4, 0.9]])
    # Means over the positives: 0.5, 0.3 and none; divided by the largest.
    adapted = adapted_class_prior(torch.tensor([1.0, 0.5, 0.25]), positive, states)
    torch.testing.assert_close(adapted, torch.tensor([1.0, 0.6, 0.25]))


def test_one_positive_of_a_disease_is_enough_to_adapt_its_prior():
    """The means are those of one study each, 0.8 and 0.4."""
    positive, states = torch.tensor([[0.8, 0.3], [0.1, 0.4]]), torch.tensor([[1, 0], [0, 1]])
    adapted = adapted_class_prior(torch.tensor([0.3, 0.7]), positive, states)
    torch.testing.assert_close(adapted, torch.tensor([1.0, 0.5]))


def test_prior_without_any_positive_is_kept():
    prior = torch.tensor([0.3, 0.7])
    torch.testing.assert_close(adapted_class_prior(prior, torch.rand(4, 2), torch.zeros(4, 2, dtype=torch.int64)), prior)

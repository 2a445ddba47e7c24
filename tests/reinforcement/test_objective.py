"""Advantages and the objective against sums done by hand, and its gradient against the analytic one of a two-token policy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from diffrgen.reinforcement.objective import group_advantages, policy_loss, self_critical_advantages


def test_rewards_are_standardised_in_their_group_and_then_weighted() -> None:
    rewards = {"states": np.array([[0.0, 1.0, 1.0, 0.0], [0.3, 0.3, 0.3, 0.3]]), "bleu_4": np.array([[1.0, 2.0, 3.0, 6.0]] * 2)}
    # states: mean 1/2, deviation 1/2; a group without a spread adds nothing. bleu_4: mean 3, variance (4 + 1 + 0 + 9) / 4.
    states = np.array([[-1.0, 1.0, 1.0, -1.0], [0.0] * 4])
    bleu = np.array([[-2.0, -1.0, 0.0, 3.0]] * 2) / math.sqrt(3.5)
    found = group_advantages(rewards, {"states": 0.5, "bleu_4": 0.2})
    np.testing.assert_allclose(found, 0.5 * states + 0.2 * bleu, rtol=0, atol=1e-15)


def test_a_report_is_compared_with_the_greedy_one() -> None:
    sampled = {"cider": np.array([[1.0, 3.0], [0.5, 0.0]]), "bleu_4": np.array([[0.1, 0.1], [0.2, 0.4]])}
    greedy = {"cider": np.array([2.0, 0.5]), "bleu_4": np.array([0.1, 0.0])}
    found = self_critical_advantages(sampled, greedy, {"cider": 2.0, "bleu_4": 10.0})
    np.testing.assert_allclose(found, [[-2.0, 2.0], [2.0, 3.0]], rtol=0, atol=1e-15)


def loss_of(ratio: float, advantage: float, *, start_ratio: float = 1.0, kl_weight: float = 0.0):
    """The loss of a report of one token with these ratios to what it was sampled with, and of the start to the policy."""
    old = torch.tensor([[math.log(0.3)]], dtype=torch.float64)
    now = (old + math.log(ratio)).requires_grad_()
    start, written = now.detach() + math.log(start_ratio), torch.ones(1, 1, dtype=torch.bool)
    wanted = torch.tensor([advantage], dtype=torch.float64)
    return now, policy_loss(now, old, start, written, wanted, clip=0.2, kl_weight=kl_weight)


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "held"),
    [
        (1.0, 2.0, -2.0, 0),
        (1.1, 2.0, -2.2, 0),
        # More of what is good is worth nothing beyond the clip, and less of what is bad neither.
        (1.5, 2.0, -2.4, 1),
        (0.5, -2.0, 1.6, 1),
        # The other way, all of it counts.
        (0.5, 2.0, -1.0, 0),
        (1.5, -2.0, 3.0, 0),
    ],
)
def test_the_clip_by_hand(ratio: float, advantage: float, loss: float, held: int) -> None:
    now, found = loss_of(ratio, advantage)
    assert found.loss.item() == pytest.approx(loss, abs=1e-12)
    assert found.clip_fraction.item() == held
    (gradient,) = torch.autograd.grad(found.loss, now)
    assert gradient.item() == pytest.approx(0.0 if held else -ratio * advantage, abs=1e-12)


def test_the_divergence_by_hand() -> None:
    now, found = loss_of(1.0, 0.0, start_ratio=2.0, kl_weight=0.04)
    assert found.kl.item() == pytest.approx(2 - math.log(2) - 1, abs=1e-12)
    assert found.loss.item() == pytest.approx(0.04 * (1 - math.log(2)), abs=1e-12)
    (gradient,) = torch.autograd.grad(found.loss, now)
    assert gradient.item() == pytest.approx(0.04 * (1 - 2), abs=1e-12)


def test_each_report_counts_alike_whatever_its_length() -> None:
    now = torch.zeros(2, 3, dtype=torch.float64)
    written = torch.tensor([[True, False, False], [True, True, True]])
    start = torch.tensor([[math.log(2.0), 50.0, 50.0], [0.0, 0.0, math.log(2.0)]], dtype=torch.float64)
    found = policy_loss(now, now, start, written, torch.tensor([1.0, 3.0]), clip=0.2, kl_weight=1.0)
    kl = 1 - math.log(2)
    assert found.loss.item() == pytest.approx(((kl - 1) + (kl / 3 - 3)) / 2, abs=1e-12)
    assert found.kl.item() == pytest.approx(2 * kl / 4, abs=1e-12)


def test_the_gradient_of_a_two_token_policy_is_the_analytic_one() -> None:
    # p = softmax(theta); reports of one token; d log p_i / d theta_j = [i = j] - p_j.
    theta = torch.tensor([0.4, -0.3], dtype=torch.float64, requires_grad=True)
    tokens = torch.tensor([0, 1, 1, 1])
    rewards = np.array([[1.0, 0.25, 0.5, 0.25]])
    advantages = torch.from_numpy(group_advantages({"states": rewards}, {"states": 1.0})[0])
    start = torch.tensor([0.1, 0.2], dtype=torch.float64).log_softmax(0)
    now = theta.log_softmax(0)[tokens].unsqueeze(1)
    found = policy_loss(
        *(now, now.detach(), start[tokens].unsqueeze(1), torch.ones(4, 1, dtype=torch.bool), advantages), clip=0.2, kl_weight=0.04
    )
    (gradient,) = torch.autograd.grad(found.loss, theta)

    p = 1 / (1 + math.exp(-0.7))
    probabilities, q = np.array([p, 1 - p]), 1 / (1 + math.exp(0.1))
    mean, deviation = 0.5, math.sqrt((0.25 + 0.0625 + 0.0 + 0.0625) / 4)
    expected = np.zeros(2)
    for token, reward in zip([0, 1, 1, 1], [1.0, 0.25, 0.5, 0.25], strict=True):
        of_log = np.eye(2)[token] - probabilities
        ratio = [q, 1 - q][token] / probabilities[token]
        expected += (-(reward - mean) / deviation + 0.04 * (1 - ratio)) * of_log / 4
    np.testing.assert_allclose(gradient.numpy(), expected, rtol=0, atol=1e-14)

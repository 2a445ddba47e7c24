"""The objective of a policy: advantages of sampled reports, and the clipped loss with its KL penalty.

Source: DeepSeekMath (Shao et al., 2024, arXiv 2402.03300), Eq. 3 and 4, for `group_advantages` and `policy_loss`; self-critical
sequence training (Rennie et al., CVPR 2017) for `self_critical_advantages`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor


def group_advantages(rewards: Mapping[str, np.ndarray], weights: Mapping[str, float]) -> np.ndarray:
    """Return the advantage (B, G) of each of G reports sampled for a study.

        A = sum_k w_k (r_k - mean_G r_k) / std_G r_k

    rewards: r_k (B, G) by name. The standard deviation is the population's; a reward that is the same for a whole group
    adds 0.

    NOTE: each reward is standardised before it is weighted, so that the weights determine the importance, not the rewards'
    spreads.
    """
    total = np.zeros(next(iter(rewards.values())).shape)
    for name, values in rewards.items():
        spread, same = values.std(axis=1, keepdims=True), np.ptp(values, axis=1, keepdims=True) == 0
        total += weights[name] * np.where(same, 0.0, (values - values.mean(axis=1, keepdims=True)) / np.where(same, 1.0, spread))
    return total


def self_critical_advantages(
    sampled: Mapping[str, np.ndarray], greedy: Mapping[str, np.ndarray], weights: Mapping[str, float]
) -> np.ndarray:
    """Return how much better (B, G) each sampled report is than the greedy one of its study: sum_k w_k (r_k - r_k greedy).

    sampled: (B, G) by name; greedy: (B,) by name.
    """
    return np.sum([weights[name] * (values - greedy[name][:, None]) for name, values in sampled.items()], axis=0)


class PolicyLoss(NamedTuple):
    """The loss; mean KL to the start a token (nats); the share of tokens whose gradient the clip holds back. Scalars."""

    loss: Tensor
    kl: Tensor
    clip_fraction: Tensor


def policy_loss(
    now: Tensor, sampled_with: Tensor, start: Tensor, written: Tensor, advantages: Tensor, *, clip: float, kl_weight: float
) -> PolicyLoss:
    """Return the loss of sampled reports, a mean over reports of the mean over their tokens.

        rho = exp(now - sampled_with)
        loss = -min(rho A, clamp(rho, 1 - clip, 1 + clip) A) + kl_weight KL
        KL = exp(start - now) - (start - now) - 1

    Args:
        now, sampled_with, start: log-probabilities (n, T) of each token by the policy, by the policy that it was sampled with,
            and by the start.
        written: (n, T) bool, False for padding.
        advantages: (n,).
    """
    ratio = (now - sampled_with).exp()
    wanted = advantages[:, None]
    clipped = ratio.clamp(1 - clip, 1 + clip)
    gain = torch.minimum(ratio * wanted, clipped * wanted)
    apart = start - now
    kl = apart.exp() - apart - 1
    held = (clipped - ratio) * wanted.sign() < 0
    count = written.sum()
    return PolicyLoss(
        loss=_mean_of_reports(kl_weight * kl - gain, written),
        kl=(kl * written).sum().detach() / count,
        clip_fraction=(held & written).sum() / count,
    )


def _mean_of_reports(values: Tensor, written: Tensor) -> Tensor:
    """Return the mean over reports of the mean over tokens of values (n, T)."""
    return ((values * written).sum(1) / written.sum(1)).mean()

"""The thresholds by which findings prompt the decoder, chosen on the validation split."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from diffrgen.labels import NO_FINDING, State

# Maximum ratio of the frequency of a prompted finding to its frequency in training.
RATES = tuple(round(0.5 + 0.1 * step, 1) for step in range(26))
NEVER = 2.0


@dataclass(frozen=True)
class PromptCalibration:
    """thresholds: one per finding; rate: positives asked for, as a multiple of the training frequency; micro_f1: that of the
    classifier on the validation split with these thresholds, over the 13 diseases.
    """

    thresholds: tuple[float, ...]
    rate: float
    micro_f1: float


def calibrate_prompts(probability: Tensor, states: Tensor, frequency: Tensor) -> PromptCalibration:
    """Return the thresholds whose positives agree best with the truth of the validation split.

    probability: P(positive) (n, C) and states: (n, C) of the n validation studies; frequency: the share (C,) of positives
    in training. Each finding's threshold lets through rate x frequency of the validation studies, so that of all findings
    only one number, the rate, is chosen by the truth: with few positives a finding, more would be chosen by chance.
    """
    truth = (states == State.POSITIVE)[:, :NO_FINDING]
    best: PromptCalibration | None = None
    for rate in RATES:
        thresholds = thresholds_at(rate, probability, frequency)
        predicted = (probability >= torch.tensor(thresholds))[:, :NO_FINDING]
        f1 = 2 * (predicted & truth).sum().item() / max(1, (predicted.sum() + truth.sum()).item())
        if best is None or f1 > best.micro_f1:
            best = PromptCalibration(thresholds, rate, f1)
    assert best is not None
    return best


def thresholds_at(rate: float, probability: Tensor, frequency: Tensor) -> tuple[float, ...]:
    """Return the threshold of each finding that lets `rate` x its `frequency` (C,) through, of P(positive) (n, C)."""
    return tuple(_threshold(p, rate * f) for p, f in zip(probability.T, frequency.tolist(), strict=True))


def _threshold(probability: Tensor, share: float) -> float:
    """Return the threshold that the `share` of largest probabilities (n,) reaches, halfway to the next smaller one."""
    count = round(share * len(probability))
    if count == 0:
        return NEVER
    ordered = probability.double().sort(descending=True).values
    if count >= len(ordered):
        return 0.0
    return float(ordered[count - 1 : count + 1].mean())

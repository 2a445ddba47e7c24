"""The order of an epoch: every study once, the same for one seed, batches of similar lengths."""

from __future__ import annotations

import random
from statistics import mean

import pytest

from diffrgen.training.order import EpochOrder


def padding(order: list[int], lengths: list[int], size: int) -> float:
    """Mean share of padding in the full batches of `order`."""
    batches = [[lengths[i] for i in order[start : start + size]] for start in range(0, len(order) - size + 1, size)]
    return mean(1 - sum(batch) / (size * max(batch)) for batch in batches)


@pytest.mark.parametrize("count", [1, 7, 8, 95, 96, 97, 1000])
def test_every_study_comes_once(count):
    order = EpochOrder([5] * count, batch_size=8, seed=0)
    assert sorted(order) == list(range(count))
    assert len(order) == count


def test_epochs_and_seeds_differ_and_repeat():
    lengths = [random.Random(0).randint(10, 90) for _ in range(300)]
    first, second = EpochOrder(lengths, batch_size=8, seed=0), EpochOrder(lengths, batch_size=8, seed=1)
    zero = list(first)
    assert zero == list(first)
    assert zero != list(second)
    first.epoch = 1
    assert zero != list(first)


def test_batches_hold_similar_lengths_in_random_order():
    draw = random.Random(1)
    lengths = [draw.randint(20, 100) for _ in range(1600)]
    order = list(EpochOrder(lengths, batch_size=16, seed=0))
    shuffled = draw.sample(range(1600), 1600)
    assert padding(order, lengths, 16) < 0.3 * padding(shuffled, lengths, 16)
    # Long and short batches alternate: the first half of the epoch is as long as the second.
    halves = [mean(lengths[i] for i in half) for half in (order[:800], order[800:])]
    assert abs(halves[0] - halves[1]) < 5

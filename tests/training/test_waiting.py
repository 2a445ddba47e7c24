"""Waiting for data is measured where the loader is asked, and workers that are kept see the epoch."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch
from torch.utils.data import Dataset

from diffrgen.fitting.epoch import SharedEpoch
from diffrgen.pipeline.dataset import Example, example_loader
from diffrgen.training import waiting
from diffrgen.training.waiting import BatchTimer


class Clock:
    """A clock that stands still unless told otherwise."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(waiting, "time", clock)
    return clock


def loader(clock: Clock, seconds: list[float]) -> Iterator[int]:
    for number, wait in enumerate(seconds):
        clock.now += wait
        yield number
    clock.now += 0.5


def test_shares_by_hand(clock):
    """Waits of 1 and 2 s, steps of 3 s, half a second until the loader ends; then 1 s and a step of 1.5 s cut short."""
    timer = BatchTimer()
    assert (timer.last_share, timer.share) == (0.0, 0.0)
    for _ in timer.timed(loader(clock, [1.0, 2.0])):
        clock.now += 3.0
    assert timer.last_share == pytest.approx(3.0 / 9.5)
    for _ in timer.timed(loader(clock, [1.0, 5.0])):
        clock.now += 1.5
        break
    assert timer.last_share == pytest.approx(1.0 / 2.5)
    assert timer.share == pytest.approx(4.0 / 12.0)


class Epochs(Dataset[Example]):
    """Four examples that say which epoch they are drawn in, and by which process."""

    def __init__(self) -> None:
        self.epoch = SharedEpoch()

    def __len__(self) -> int:
        return 4

    def __getitem__(self, row: int) -> Example:
        value = torch.tensor([self.epoch.number, os.getpid()])
        return {"value": value, "labels": value, "pixel_values": value, "view_kinds": value}


@pytest.mark.parametrize("kept", [True, False])
def test_kept_workers_see_the_epoch(kept):
    dataset, processes = Epochs(), []
    batches = example_loader(dataset, batch_size=2, workers=1, passes=kept)
    for epoch in (0, 1, 5):
        dataset.epoch.number = epoch
        epochs, by = torch.cat([batch["value"] for batch in batches]).unbind(1)
        assert epochs.tolist() == [epoch] * 4
        processes.append(set(by.tolist()))
    assert (processes[0] == processes[1] == processes[2]) == kept
    assert os.getpid() not in processes[0]

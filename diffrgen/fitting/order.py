"""The order of the examples in a pass, and the loader that a fit takes a pass from."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from diffrgen.fitting.epoch import seeded_generator
from diffrgen.workers import worker_options

Item = TypeVar("Item")
Batch = TypeVar("Batch")


class PassOrder(Sampler[int]):
    """The order of the examples in a pass, drawn from (seed, epoch) alone; the first `start` are left out.

    Left to itself, a loader draws each pass from one generator, of which workers that are kept take fewer numbers.
    """

    def __init__(self, count: int, *, seed: int) -> None:
        self.count, self.seed, self.epoch, self.start = count, seed, 0, 0

    def __len__(self) -> int:
        return self.count - self.start

    def __iter__(self) -> Iterator[int]:
        generator = seeded_generator(self.seed, self.epoch)
        return iter(torch.randperm(self.count, generator=generator)[self.start :].tolist())


def pass_loader(
    examples: Dataset[Item],
    order: PassOrder,
    *,
    batch_size: int,
    workers: int,
    collate: Callable[[list[Item]], Batch] | None = None,
) -> DataLoader[Item]:
    """Return a loader of full batches in `order`, at most all examples in one; `workers` are kept from pass to pass."""
    return DataLoader(
        examples,
        batch_size=min(batch_size, order.count),
        sampler=order,
        drop_last=True,
        collate_fn=collate,
        # A separate generator, so that starting a pass draws nothing from the one that dropout uses.
        generator=torch.Generator(),
        persistent_workers=workers > 0,
        pin_memory=torch.cuda.is_available(),
        **worker_options(workers),
    )

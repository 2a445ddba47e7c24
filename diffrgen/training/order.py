"""The order of the training studies: a new one each epoch, the same for one seed, batches of similar report lengths."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

import torch
from torch.utils.data import Sampler

from diffrgen.fitting.epoch import seeded_generator

BATCHES_SORTED_TOGETHER = 12


class EpochOrder(Sampler[int]):
    """A permutation of the studies drawn from (seed, epoch), so that a resumed epoch continues in the same order.

    Within random blocks of 12 batches, studies are sorted by `lengths` (tokens of each report) and the batches
    shuffled, so that little of a batch is padding. The first `start` of the order are left out.
    """

    def __init__(self, lengths: Sequence[int], *, batch_size: int, seed: int) -> None:
        self.lengths, self.batch_size, self.seed = lengths, batch_size, seed
        self.epoch = self.start = 0

    def __len__(self) -> int:
        return len(self.lengths) - self.start

    def __iter__(self) -> Iterator[int]:
        return islice(self._order(), self.start, None)

    def _order(self) -> Iterator[int]:
        generator = seeded_generator(self.seed, self.epoch)
        order = torch.randperm(len(self.lengths), generator=generator).tolist()
        for block in _parts(order, BATCHES_SORTED_TOGETHER * self.batch_size):
            batches = _parts(sorted(block, key=self.lengths.__getitem__), self.batch_size)
            # An incomplete batch stays last: the loader drops the last batch of the epoch.
            full = batches[:-1] if len(batches[-1]) < self.batch_size else batches
            for number in torch.randperm(len(full), generator=generator).tolist():
                yield from full[number]
            yield from (study for batch in batches[len(full) :] for study in batch)


def _parts(items: list[int], size: int) -> list[list[int]]:
    return [items[start : start + size] for start in range(0, len(items), size)]

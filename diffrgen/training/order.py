"""The order of the training studies: a new one each epoch, the same for one seed."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.utils.data import Sampler


class EpochOrder(Sampler[int]):
    """A permutation of `count` studies drawn from (seed, epoch), so that a resumed epoch goes on in the same order."""

    def __init__(self, count: int, seed: int) -> None:
        self.count, self.seed, self.epoch = count, seed, 0

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(hash((self.seed, self.epoch)) % 2**63)
        yield from torch.randperm(self.count, generator=generator).tolist()

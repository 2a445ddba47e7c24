"""The number of the current pass over a data set, also in the workers that a loader keeps, and the random draws of a pass."""

from __future__ import annotations

import torch


def seeded_generator(*numbers: int) -> torch.Generator:
    """Return a new generator seeded by `numbers` alone, such as (seed, epoch, example)."""
    return torch.Generator().manual_seed(hash(numbers) % 2**63)


class SharedEpoch:
    """A number in shared memory: a worker has a copy of the data set, in which a plain number would stay as it was."""

    def __init__(self) -> None:
        self._number = torch.zeros((), dtype=torch.int64).share_memory_()

    @property
    def number(self) -> int:
        """The current pass, 0 at first. Set it before the loader starts, because its workers read ahead."""
        return int(self._number)

    @number.setter
    def number(self, number: int) -> None:
        self._number.fill_(number)

"""The processes that make an index together: each computes its share of the batches, the first one gets them all."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch.distributed as dist

from diffrgen.staging import partial_path

Item = TypeVar("Item")
Arrays = tuple[np.ndarray, ...]


@dataclass(frozen=True)
class ProcessGroup:
    """This process, number `rank` of `size`; by default it works alone. All of a group see one file system."""

    rank: int = 0
    size: int = 1

    @classmethod
    def of_processes(cls) -> ProcessGroup:
        """Return the group of torch.distributed's process group; alone if there is none.

        What is handed a group has to be called by every process of it.
        """
        if dist.is_available() and dist.is_initialized():
            return cls(dist.get_rank(), dist.get_world_size())
        return cls()

    @property
    def leads(self) -> bool:
        """Whether this is the process that puts the shares together."""
        return self.rank == 0

    def share(self, batches: Sequence[Item]) -> Sequence[Item]:
        """Return this process's run of `batches`; the shares in order of ranks are all of them.

        Batches stay whole, so that what is computed of each does not depend on how many processes there are.
        """
        count = len(batches)
        return batches[count * self.rank // self.size : count * (self.rank + 1) // self.size]

    def wait(self) -> None:
        """Return when every process of the group has come here."""
        if self.size > 1:
            dist.barrier()

    @contextmanager
    def leader_first(self) -> Iterator[None]:
        """Let the first process run the block before all others, which then find made what it has made."""
        if not self.leads:
            self.wait()
        yield
        if self.leads:
            self.wait()

    def gather(self, own: Iterable[Arrays], path: Path) -> Iterator[Arrays]:
        """Yield what all processes computed, in order of ranks, to the first one; nothing to the others.

        Every process has to exhaust it. What comes from another process comes through a file beside `path`, so that
        neither it nor the whole need be in memory; the first process's own share is not written.
        """
        if not self.leads:
            _write(self._part(path, self.rank), own)
            self.wait()
            return
        yield from own
        self.wait()
        for rank in range(1, self.size):
            part = self._part(path, rank)
            yield from _read(part)
            part.unlink()

    @staticmethod
    def _part(path: Path, rank: int) -> Path:
        return partial_path(path.with_name(f"{path.name}.{rank}"))


SINGLE_PROCESS = ProcessGroup()


def _write(path: Path, batches: Iterable[Arrays]) -> None:
    """Write a stream of arrays, one after the other."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        for batch in batches:
            for array in (np.array(len(batch)), *batch):
                np.save(file, array, allow_pickle=False)


def _read(path: Path) -> Iterator[Arrays]:
    with path.open("rb") as file:
        while file.peek(1):
            count = int(np.load(file, allow_pickle=False))
            yield tuple(np.load(file, allow_pickle=False) for _ in range(count))

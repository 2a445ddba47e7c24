"""`python bench/retrieval.py`: build an index of a million clustered embeddings and ask it; recall, latency and memory.

Reports come in families of very different size, as findings do: a report is a centre plus noise, the centres
themselves lie in groups, and the sizes of the families follow a power law. Queries are further members.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from machine import describe
from memory import resident_bytes
from result import publish
from timing import Spread

from diffrgen.retrieval import IndexedStudies, RetrievalIndex, write_index
from diffrgen.retrieval.faiss_index import RANKS

BATCH = 65_536
SINGLE_PROCESS, ROUNDS = 200, 5


class Crowd:
    """Synthetic unit-length embeddings of width E, in families about centres, the centres in groups.

    spread: length of the noise about a family's centre, and of a centre about its group's, which have length 1.
    """

    def __init__(self, *, width: int, families: int, groups: int = 200, spread: float = 0.6, seed: int = 0) -> None:
        self.width, self.spread = width, spread
        self.rng = np.random.default_rng(seed)
        middles = self._around(np.zeros((groups, width), dtype=np.float32))
        self.centres = self._around(middles[self.rng.integers(groups, size=families)])
        # the n-th family's share of the members
        self.shares = np.arange(1, families + 1) ** -0.7
        self.shares /= self.shares.sum()

    def draw(self, count: int) -> np.ndarray:
        """Further members, (count, E) float32."""
        return self._around(self.centres[self.rng.choice(len(self.shares), size=count, p=self.shares)])

    def batches(self, rows: int) -> Iterator[np.ndarray]:
        """`rows` further members, at most BATCH at a time."""
        for start in range(0, rows, BATCH):
            yield self.draw(min(BATCH, rows - start))

    def _around(self, centres: np.ndarray) -> np.ndarray:
        members = self.rng.standard_normal(centres.shape, dtype=np.float32)
        members *= self.spread / self.width**0.5
        members += centres
        members /= np.linalg.norm(members, axis=1, keepdims=True)
        return members


@dataclass(frozen=True)
class Setting:
    """The index and its data."""

    rows: int = 1_000_000
    width: int = 512
    families: int = 50_000
    factory: str = "IVF4096,SQ8"
    search: str = "nprobe=16"
    queries: int = 1000


def measure(setting: Setting, folder: Path) -> dict[str, Any]:
    """Build, measure recall of the queries against exact search, time them together and alone."""
    crowd = Crowd(width=setting.width, families=setting.families)
    names = [str(row) for row in range(setting.rows)]
    studies = IndexedStudies.of(ids=names, patients=[None] * setting.rows, reports=names)
    started = time.perf_counter()
    index = write_index(folder, studies, crowd.batches(setting.rows), factory=setting.factory, search=setting.search)
    built, building_peak = time.perf_counter() - started, _peak_mb()
    queries = crowd.draw(setting.queries)
    found = index.search(queries, RANKS).rows
    together = [_seconds(index, queries) / len(queries) for _ in range(ROUNDS)]
    alone = [_seconds(index, queries[row : row + 1]) for row in range(min(SINGLE_PROCESS, len(queries)))]
    # Before the exact answers, which a user does not compute.
    peak = _peak_mb()
    return {
        "setting": asdict(setting),
        "build_seconds": built,
        "recall_of_reports": index.manifest.recall,
        "recall_of_queries": _recall(index, queries, found),
        "milliseconds_a_query": {
            "in_one_batch": asdict(Spread.of([1e3 * x for x in together])),
            "alone": asdict(Spread.of([1e3 * x for x in alone])),
        },
        "disk_mb": sum(file.stat().st_size for file in folder.iterdir()) / 1e6,
        "peak_memory_mb": peak,
        "peak_memory_of_building_mb": building_peak,
    }


def _seconds(index: RetrievalIndex, queries: np.ndarray) -> float:
    started = time.perf_counter()
    index.search(queries, RANKS)
    return time.perf_counter() - started


def _recall(index: RetrievalIndex, queries: np.ndarray, found: np.ndarray) -> float:
    """The share of the exact nearest rows among those found."""
    best = np.full((len(queries), RANKS), -np.inf, dtype=np.float32)
    rows = np.zeros((len(queries), RANKS), dtype=np.int64)
    for start in range(0, len(index.embeddings), BATCH):
        similarity = queries @ index.embeddings[start : start + BATCH].T
        both = np.concatenate([best, similarity], axis=1)
        names = np.concatenate(
            [rows, np.broadcast_to(np.arange(similarity.shape[1]) + start, similarity.shape)], axis=1
        )
        top = np.argpartition(-both, RANKS - 1, axis=1)[:, :RANKS]
        best, rows = np.take_along_axis(both, top, 1), np.take_along_axis(names, top, 1)
    return float(np.mean([len(set(a) & set(b)) / RANKS for a, b in zip(found.tolist(), rows.tolist(), strict=True)]))


def _peak_mb() -> float | None:
    """The peak memory of this process; None if the system does not report it."""
    peak = resident_bytes("VmHWM")
    return None if peak is None else peak / 1e6


def main(arguments: Sequence[str]) -> int:
    """Measure, print it, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=Setting.rows)
    parser.add_argument("--factory", default=Setting.factory, help="(default: %(default)s)")
    parser.add_argument("--search", default=Setting.search, help="(default: %(default)s)")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    parser.add_argument("--quick", action="store_true", help="a tiny index, to try the script itself")
    options = parser.parse_args(arguments)
    setting = Setting(rows=options.rows, factory=options.factory, search=options.search)
    if options.quick:
        setting = Setting(rows=3000, width=32, families=100, factory="IVF16,Flat", search="nprobe=8", queries=50)
    with tempfile.TemporaryDirectory() as folder:
        result = {"machine": describe("cpu"), **measure(setting, Path(folder) / "index")}
    publish(result, options.output)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

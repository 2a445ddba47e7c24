"""Drawn embeddings and the studies that they belong to, for tests of the index."""

from __future__ import annotations

import numpy as np

from diffrgen.retrieval import IndexedStudies

WIDTH = 16


def unit(count: int, *, seed: int = 0) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((count, WIDTH)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def make_studies(count: int, *, texts: int | None = None, patients: int | None = None) -> IndexedStudies:
    return IndexedStudies.of(
        ids=[f"s{row}" for row in range(count)],
        reports=[f"report {row % (texts or count)} ." for row in range(count)],
        patients=[f"p{row % patients}" if patients else None for row in range(count)],
    )

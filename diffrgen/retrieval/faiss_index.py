"""FAISS over embeddings on disk: trained on a sample, filled in batches, its recall measured against exact search."""

from __future__ import annotations

from typing import Any

import faiss
import numpy as np

from diffrgen.errors import DataError
from diffrgen.retrieval.faiss_gpu import to_gpu, warn_of_two_packages

RANKS = 21
ROWS_AT_ONCE = 65_536
# FAISS's k-means takes at most 256 points a centroid and warns below 39; 64 are enough here and a quarter of the time.
POINTS_A_CENTROID = 64
LEAST_TRAINING_ROWS = 65_536
QUERIES = 1000


def set_search(index: faiss.Index, search: str) -> None:
    """Set FAISS search parameters, such as "nprobe=16"; RuntimeError for those that `index` does not know."""
    parameters: Any = faiss.ParameterSpace()  # whose types name another overload
    parameters.set_index_parameters(index, search)


def make_faiss_index(embeddings: np.ndarray, factory: str, search: str) -> faiss.Index:
    """Return an inner-product index of (texts, E) float32 embeddings, which may be memory-mapped.

    factory: faiss.index_factory string; search: FAISS search parameters or "". It is trained and filled on a GPU where
    FAISS has one.

    Raises DataError for a factory or parameters that FAISS refuses.
    """
    warn_of_two_packages()
    try:
        index = faiss.index_factory(embeddings.shape[1], factory, faiss.METRIC_INNER_PRODUCT)
        worker = to_gpu(index)
        if not index.is_trained:
            worker.train(embeddings[sample_rows(len(embeddings), training_rows(index))])
        for start in range(0, len(embeddings), ROWS_AT_ONCE):
            worker.add(np.ascontiguousarray(embeddings[start : start + ROWS_AT_ONCE]))
        if worker is not index:
            index = faiss.index_gpu_to_cpu(worker)
        if search:
            set_search(index, search)
    except RuntimeError as error:
        raise DataError(
            f"index_factory {factory!r} (search {search!r}): FAISS refused it for {len(embeddings)} reports of width "
            f"{embeddings.shape[1]}: {error}"
        ) from error
    return index


def exact_index(embeddings: np.ndarray) -> faiss.Index:
    """Return an index that compares with every row of (texts, E) float32 embeddings; it holds a copy of them."""
    index = faiss.IndexFlatIP(embeddings.shape[1])
    for start in range(0, len(embeddings), ROWS_AT_ONCE):
        index.add(np.ascontiguousarray(embeddings[start : start + ROWS_AT_ONCE]))
    return index


def training_rows(index: faiss.Index) -> int:
    """Return how many rows an index is trained on: 64 a centroid of its coarse quantiser, 65,536 at least."""
    try:
        lists = faiss.extract_index_ivf(index).nlist
    except RuntimeError:  # no inverted lists
        lists = 0
    return max(LEAST_TRAINING_ROWS, POINTS_A_CENTROID * lists)


def sample_rows(rows: int, count: int, *, seed: int = 0) -> np.ndarray:
    """Return at most `count` of the row numbers 0 .. rows - 1, drawn without replacement, ascending."""
    if rows <= count:
        return np.arange(rows)
    return np.sort(np.random.default_rng(seed).choice(rows, size=count, replace=False))


def measured_recall(index: faiss.Index, embeddings: np.ndarray) -> float:
    """Return the share of the 21 most similar other reports that the index finds, over up to 1,000 reports as queries.

    1 for an index that compares with every row; where there are fewer than 22 reports, of all the others.
    """
    ranks = min(RANKS, len(embeddings) - 1)
    if ranks < 1 or isinstance(faiss.downcast_index(index), faiss.IndexFlat):
        return 1.0
    rows = sample_rows(len(embeddings), QUERIES)
    queries = np.ascontiguousarray(embeddings[rows])
    # One more than requested, because the nearest report of a report is itself.
    heap = faiss.ResultHeap(len(rows), ranks + 1, keep_max=True)
    for start in range(0, len(embeddings), ROWS_AT_ONCE):
        block = np.ascontiguousarray(embeddings[start : start + ROWS_AT_ONCE])
        width = min(ranks + 1, len(block))
        similarity, found = faiss.knn(queries, block, width, metric=faiss.METRIC_INNER_PRODUCT)
        heap.add_result(similarity, found + start)
    heap.finalize()
    _, approximate = index.search(queries, ranks + 1)
    hits = sum(
        len(_others(exact, row, ranks) & _others(near, row, ranks))
        for exact, near, row in zip(heap.I, approximate, rows, strict=True)
    )
    return hits / (len(rows) * ranks)


def _others(found: np.ndarray, row: int, ranks: int) -> set[int]:
    """Return the first `ranks` of the rows found, `row` itself and absent ones (-1) left out."""
    return set(found[(found != row) & (found >= 0)][:ranks].tolist())

"""FAISS on a GPU, which stands here as a border that counts what crosses it: the index that goes over does all the work."""

from __future__ import annotations

import warnings
from importlib import metadata

import faiss
import numpy as np
import pytest
from indexed_studies import make_studies, unit

from diffrgen.retrieval import faiss_gpu, index, write_index


class Border:
    """A GPU that holds copies of indices; `refuses` is what it says of one that it cannot have."""

    refuses: str | None = None

    def __init__(self) -> None:
        self.over: list[tuple[int, int]] = []  # device, rows of each index that went over
        self.back: list[int] = []  # rows of each that came back
        self.queries = 0

    def to_gpu(self, resources: object, device: int, origin: faiss.Index) -> faiss.Index:
        if self.refuses:
            raise RuntimeError(self.refuses)
        self.over.append((device, origin.ntotal))
        copy = faiss.clone_index(origin)
        search = copy.search

        def counted(queries: np.ndarray, count: int):
            assert count <= faiss_gpu.MOST_ON_GPU
            self.queries += len(queries)
            return search(queries, count)

        copy.search = counted
        return copy

    def to_cpu(self, copy: faiss.Index) -> faiss.Index:
        self.back.append(copy.ntotal)
        return faiss.clone_index(copy)


@pytest.fixture
def border(monkeypatch) -> Border:
    border = Border()
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 1)
    monkeypatch.setattr(faiss, "StandardGpuResources", object, raising=False)
    monkeypatch.setattr(faiss, "index_cpu_to_gpu", border.to_gpu, raising=False)
    monkeypatch.setattr(faiss, "index_gpu_to_cpu", border.to_cpu, raising=False)
    monkeypatch.setattr(index, "QUERIES_AT_ONCE", 16)
    return border


def test_an_index_is_trained_and_filled_over_there_and_kept_here(tmp_path, border):
    studies, embeddings = make_studies(300), unit(300)
    made = write_index(tmp_path / "gpu", studies, embeddings, factory="IVF4,Flat", search="nprobe=4")
    # It went over untrained and empty, and came back full.
    assert (border.over, border.back) == ([(0, 0)], [300])
    queries = unit(40, seed=1)
    found = made.search(queries, 9)
    assert (border.over[1:], border.queries) == ([(0, 300)], 40)
    similarity = queries.astype(np.float64) @ embeddings.T.astype(np.float64)
    np.testing.assert_array_equal(found.rows, np.argsort(-similarity, axis=1)[:, :9])
    assert made.manifest.recall == 1.0


def test_few_queries_and_more_neighbours_than_a_gpu_gives_are_answered_here(tmp_path, border, monkeypatch):
    made = write_index(tmp_path, make_studies(300), unit(300))
    made.search(unit(15, seed=1), 9)
    assert len(border.over) == 1
    monkeypatch.setattr(index, "MOST_ON_GPU", 8)
    queries = unit(40, seed=1)
    found = made.search(queries, 9)
    assert border.queries == 0
    np.testing.assert_array_equal(found.rows, np.argsort(-(queries @ unit(300).T), axis=1)[:, :9])


def test_an_index_that_no_gpu_can_have_stays_here_and_says_so(tmp_path, border):
    border.refuses = "This index type is not implemented on GPU"
    with pytest.warns(RuntimeWarning, match="the index stays on the CPU.*not implemented on GPU"):
        made = write_index(tmp_path, make_studies(300), unit(300), factory="HNSW16")
    with pytest.warns(RuntimeWarning, match="stays on the CPU"):
        assert made.search(unit(40, seed=1), 9).valid.all()
    assert (border.over, border.back) == ([], [])


def test_two_packages_of_one_module_are_warned_of(tmp_path, monkeypatch):
    installed = metadata.packages_distributions()
    monkeypatch.setattr(faiss_gpu, "faiss_packages", faiss_gpu.faiss_packages.__wrapped__)
    monkeypatch.setattr(faiss_gpu, "packages_distributions", lambda: {**installed, "faiss": ["faiss-gpu", "faiss-cpu"]})
    with pytest.warns(RuntimeWarning, match="pip uninstall faiss-cpu faiss-gpu, then install"):
        write_index(tmp_path, make_studies(8), unit(8))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        monkeypatch.setattr(faiss_gpu, "packages_distributions", lambda: {"faiss": ["faiss-gpu", "faiss-gpu"]})
        write_index(tmp_path, make_studies(8), unit(8))

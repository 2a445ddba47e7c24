"""Writes a retrieval index folder: index.faiss, embeddings.npy, studies.json, token features, manifest.json."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import faiss
import numpy as np

from diffrgen.fingerprint import fingerprint
from diffrgen.retrieval.faiss_index import RANKS, make_faiss_index, measured_recall
from diffrgen.retrieval.index import RetrievalIndex
from diffrgen.retrieval.manifest import IndexManifest
from diffrgen.retrieval.own_files import note_own
from diffrgen.retrieval.studies import IndexedStudies
from diffrgen.staging import file_digest, staged

GOOD_RECALL = 0.95


class TokenStore(NamedTuple):
    """Token features of each distinct text, as they come out of the text tower batch by batch, and their length."""

    batches: Iterable[tuple[np.ndarray, np.ndarray]]  # features (b, <= T, E_token), lengths (b,)
    length: int  # T
    width: int  # E_token


def write_index(
    folder: str | Path,
    studies: IndexedStudies,
    embeddings: np.ndarray | Iterable[np.ndarray],
    *,
    factory: str = "Flat",
    search: str = "",
    retriever: str = "",
    tokens: TokenStore | None = None,
) -> RetrievalIndex:
    """Write the index of `studies` to `folder` (an index there is replaced) and open it.

    Args:
        embeddings: (len(studies.texts), E) float32, unit-length rows, one for each distinct text: whole, or batch by
            batch, so that they need never be in memory at once.
        factory: faiss.index_factory string; the metric is the inner product.
        search: FAISS search parameters such as "nprobe=16" or "efSearch=64".
        retriever: fingerprint of the retriever that made the embeddings.

    An approximate index is measured against exact search; a recall below 0.95 is warned of.

    Raises DataError for a factory string that FAISS refuses, ValueError for embeddings of another shape or length.
    """
    folder, texts = Path(folder), len(studies.texts)
    with staged(folder) as stage:
        batches = [embeddings] if isinstance(embeddings, np.ndarray) else embeddings
        store = _write_embeddings(stage / "embeddings.npy", batches, texts)
        faiss_index = make_faiss_index(store, factory, search)
        recall = _recall(faiss_index, store, factory, search)
        faiss.write_index(faiss_index, str(stage / "index.faiss"))
        if not isinstance(faiss.downcast_index(faiss_index), faiss.IndexFlat):
            note_own(stage / "index.faiss")
        studies.save(stage / "studies.json")
        if tokens is not None:
            _write_tokens(stage, tokens, texts)
        IndexManifest(
            factory=factory,
            search=search,
            studies=len(studies),
            texts=texts,
            width=store.shape[1],
            token_length=tokens.length if tokens else 0,
            token_width=tokens.width if tokens else 0,
            fingerprint=fingerprint([factory, search, *studies.ids, *studies.texts, store.data]),
            retriever=retriever,
            recall=recall,
            files={path.name: file_digest(path) for path in sorted(stage.iterdir())},
        ).save(stage)
    return RetrievalIndex.load(folder)


def _recall(faiss_index: faiss.Index, embeddings: np.ndarray, factory: str, search: str) -> float:
    recall = measured_recall(faiss_index, embeddings)
    if recall < GOOD_RECALL:
        warnings.warn(
            f"the index {factory!r} (search {search!r}) finds {recall:.2f} of the {RANKS} most similar reports; raise "
            "nprobe or efSearch in the search parameters, or choose another factory",
            RuntimeWarning,
            stacklevel=3,
        )
    return recall


def _write_embeddings(path: Path, batches: Iterable[np.ndarray], texts: int) -> np.ndarray:
    """Write batches of rows to an array file; return it memory-mapped, (texts, E)."""
    store: np.memmap | None = None
    done = 0
    for batch in batches:
        if store is None and batch.ndim == 2:
            store = _new_array(path, np.float32, (texts, batch.shape[1]))
        if (
            store is None
            or batch.shape[1:] != store.shape[1:]
            or batch.dtype != np.float32
            or done + len(batch) > texts
        ):
            width = "E" if store is None else store.shape[1]
            raise ValueError(
                f"expected float32 embeddings of {texts} texts, (b, {width}) a batch, got {batch.dtype} of shape "
                f"{batch.shape} after {done} rows"
            )
        length = np.linalg.norm(batch, axis=1)
        if not (np.abs(length - 1) < 1e-3).all():
            raise ValueError(f"expected unit-length rows, got lengths from {length.min():.4f} to {length.max():.4f}")
        store[done : done + len(batch)] = batch
        done += len(batch)
    if store is None or done != texts:
        raise ValueError(f"expected embeddings of {texts} texts, got {done}")
    store.flush()
    return store


def _new_array(path: Path, kind: type[np.floating], shape: tuple[int, ...]) -> np.memmap:
    """Return a new array file, memory-mapped; OSError if the disk has no room for it.

    Written to a file with holes, a mapped page for which there is no room ends the process with a bus error.
    """
    store = np.lib.format.open_memmap(path, mode="w+", dtype=kind, shape=shape)
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return store


def _write_tokens(folder: Path, tokens: TokenStore, texts: int) -> None:
    shape = (texts, tokens.length, tokens.width)
    store = _new_array(folder / "tokens.npy", np.float16, shape)
    lengths = np.zeros(texts, dtype=np.int64)
    start = 0
    for features, counts in tokens.batches:
        used = min(features.shape[1], tokens.length)
        kept = np.minimum(counts, used)
        inside = np.arange(used) < kept[:, None]  # (b, used)
        rows = slice(start, start + len(features))
        store[rows, :used] = np.where(inside[..., None], features[:, :used], 0)
        lengths[rows] = kept
        start += len(features)
    store.flush()
    if start != texts:
        raise ValueError(f"expected token features of {texts} texts, got {start}")
    np.save(folder / "lengths.npy", lengths, allow_pickle=False)

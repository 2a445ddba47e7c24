"""Writes a retrieval index folder: index.faiss, embeddings.npy, studies.json, token features, manifest.json."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import faiss
import numpy as np

from diffrgen.errors import DataError
from diffrgen.retrieval.fingerprint import fingerprint
from diffrgen.retrieval.index import RetrievalIndex
from diffrgen.retrieval.manifest import IndexManifest
from diffrgen.retrieval.staging import staged
from diffrgen.retrieval.studies import IndexedStudies


class TokenStore(NamedTuple):
    """Token features of each distinct text, as they come out of the text tower batch by batch, and their length."""

    batches: Iterable[tuple[np.ndarray, np.ndarray]]  # features (b, <= T, E_token), lengths (b,)
    length: int  # T
    width: int  # E_token


def write_index(
    folder: str | Path,
    studies: IndexedStudies,
    embeddings: np.ndarray,
    *,
    factory: str = "Flat",
    search: str = "",
    retriever: str = "",
    tokens: TokenStore | None = None,
) -> RetrievalIndex:
    """Write the index of `studies` to `folder` (an index there is replaced) and open it.

    Args:
        embeddings: (len(studies.texts), E) float32, unit-length rows: one for each distinct text.
        factory: faiss.index_factory string; the metric is the inner product.
        search: FAISS search parameters such as "nprobe=16" or "efSearch=64".
        retriever: fingerprint of the retriever that made the embeddings.

    Raises DataError for a factory string that FAISS refuses, ValueError for embeddings of another shape or length.
    """
    folder = Path(folder)
    embeddings = _checked(embeddings, len(studies.texts))
    faiss_index = _build_faiss(embeddings, factory, search)
    manifest = IndexManifest(
        factory=factory,
        search=search,
        studies=len(studies),
        texts=len(studies.texts),
        width=embeddings.shape[1],
        token_length=tokens.length if tokens else 0,
        token_width=tokens.width if tokens else 0,
        fingerprint=fingerprint([factory, search, *studies.ids, *studies.texts, embeddings.data]),
        retriever=retriever,
    )
    with staged(folder) as stage:
        faiss.write_index(faiss_index, str(stage / "index.faiss"))
        np.save(stage / "embeddings.npy", embeddings, allow_pickle=False)
        studies.save(stage / "studies.json")
        if tokens is not None:
            _write_tokens(stage, tokens, len(studies.texts))
        manifest.save(stage)
    return RetrievalIndex.load(folder)


def _checked(embeddings: np.ndarray, texts: int) -> np.ndarray:
    if embeddings.ndim != 2 or len(embeddings) != texts or embeddings.dtype != np.float32:
        raise ValueError(
            f"expected float32 embeddings of shape ({texts}, E), got {embeddings.dtype} of shape {embeddings.shape}"
        )
    length = np.linalg.norm(embeddings, axis=1)
    if not (np.abs(length - 1) < 1e-3).all():
        raise ValueError(f"expected unit-length rows, got lengths from {length.min():.4f} to {length.max():.4f}")
    return np.ascontiguousarray(embeddings)


def _build_faiss(embeddings: np.ndarray, factory: str, search: str) -> faiss.Index:
    try:
        index = faiss.index_factory(embeddings.shape[1], factory, faiss.METRIC_INNER_PRODUCT)
        if not index.is_trained:
            index.train(embeddings)
        index.add(embeddings)
        if search:
            faiss.ParameterSpace().set_index_parameters(index, search)
    except RuntimeError as error:
        raise DataError(
            f"index_factory {factory!r} (search {search!r}): FAISS refused it for {len(embeddings)} reports of width "
            f"{embeddings.shape[1]}: {error}"
        ) from error
    return index


def _write_tokens(folder: Path, tokens: TokenStore, texts: int) -> None:
    shape = (texts, tokens.length, tokens.width)
    store = np.lib.format.open_memmap(folder / "tokens.npy", mode="w+", dtype=np.float16, shape=shape)
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

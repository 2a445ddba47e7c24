"""The retrieval index: report embeddings of the training studies, searched by image embeddings with FAISS."""

from __future__ import annotations

import struct
import tokenize
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import faiss
import numpy as np

from diffrgen.errors import DataError
from diffrgen.retrieval.faiss_gpu import MOST_ON_GPU, to_gpu
from diffrgen.retrieval.faiss_index import exact_index, set_search
from diffrgen.retrieval.manifest import IndexManifest
from diffrgen.retrieval.own_files import is_own
from diffrgen.retrieval.studies import IndexedStudies

QUERIES_AT_ONCE = 1024
# A FAISS file begins with its kind, the width and the number of rows.
HEADER = struct.Struct("<4siq")
# The header of an exact index continues with two unused numbers, whether it is trained, its metric (0: inner product), and
# the number of float32 values, which form the rest of the file.
EXACT = struct.Struct("<4siqqq?iq")
# Exceptions of numpy, whose header is Python source.
DAMAGED_ARRAY = (OSError, ValueError, EOFError, OverflowError, SyntaxError, tokenize.TokenError)
# Maximum size of the embeddings that are searched exactly in place of an approximate index from elsewhere.
MOST_EXACT_BYTES = 16 * 2**30
FLAT = (b"IxFI", b"IxF2", b"IxFl")


@dataclass(frozen=True)
class Neighbours:
    """The studies retrieved for Q queries, most similar first; where fewer than N remain, `rows` is -1, `similarity`
    0 and `valid` false.
    """

    rows: np.ndarray  # (Q, N) int64
    similarity: np.ndarray  # (Q, N) float32
    valid: np.ndarray  # (Q, N) bool

    def __len__(self) -> int:
        return len(self.rows)


class TokenBlock(NamedTuple):
    """Token features of gathered reports, zero where `mask` is false."""

    features: np.ndarray  # (..., T, E_token) float16
    mask: np.ndarray  # (..., T) bool


@dataclass(frozen=True)
class RetrievalIndex:
    """Report embeddings of training studies; `load` opens a folder that `write_index` wrote, memory-mapped.

    Rows count studies. Reports that are the same text share one row of `embeddings` (rows of which count texts).
    """

    folder: Path
    manifest: IndexManifest
    studies: IndexedStudies
    embeddings: np.ndarray  # (texts, E) float32, unit length
    faiss_index: faiss.Index
    tokens: np.ndarray | None = None  # (texts, T, E_token) float16
    lengths: np.ndarray | None = None  # (texts,) int64

    @classmethod
    def load(cls, folder: str | Path) -> RetrievalIndex:
        """Open an index folder; DataError when a file is missing, of another format, not the one that the manifest was
        written with or does not fit the others.

        An approximate index that another user or machine wrote is searched exactly, with a warning: FAISS is given the
        bytes of such files only where they were written here.
        """
        folder = Path(folder)
        manifest = IndexManifest.load(folder)
        # Digests are compared before NumPy or FAISS read the files.
        manifest.check(folder)
        studies = IndexedStudies.load(folder / "studies.json")
        if (len(studies), len(studies.texts)) != (manifest.studies, manifest.texts):
            raise DataError(
                f"{folder / 'studies.json'}: needed {manifest.studies} studies with {manifest.texts} texts as "
                f"manifest.json says, got {len(studies)} with {len(studies.texts)}; build the index again"
            )
        embeddings = _open(folder / "embeddings.npy", (manifest.texts, manifest.width), "float32")
        if not np.isfinite(embeddings).all():
            raise DataError(f"{folder / 'embeddings.npy'}: needed numbers, got NaN or infinity; build the index again")
        tokens = lengths = None
        if manifest.token_length:
            shape = (manifest.texts, manifest.token_length, manifest.token_width)
            tokens = _open(folder / "tokens.npy", shape, "float16")
            lengths = _open(folder / "lengths.npy", (manifest.texts,), "int64")
        return cls(folder, manifest, studies, embeddings, _open_faiss(folder, manifest, embeddings), tokens, lengths)

    def __len__(self) -> int:
        return len(self.studies)

    def search(
        self,
        queries: np.ndarray,
        count: int,
        *,
        exclude_study: Sequence[str | None] | None = None,
        exclude_patient: Sequence[str | None] | None = None,
    ) -> Neighbours:
        """Return the `count` most similar studies of each query, each report text once.

        similarity = query . embedding, computed in float32 for every study returned whatever the FAISS index
        approximates; equal similarities come in order of rows. A text that several studies share is
        represented by the first of them that the query may see.

        Args:
            queries: (Q, E) float32 unit-length image embeddings.
            count: N, at most the number of studies.
            exclude_study: for each query the study that it must not retrieve (its own), or None.
            exclude_patient: for each query the patient none of whose studies it may retrieve, or None.

        Raises DataError for a `count` above the number of studies, ValueError for queries of another shape.
        """
        queries = self._checked(queries, count)
        for name, names in (("exclude_study", exclude_study), ("exclude_patient", exclude_patient)):
            if names is not None and len(names) != len(queries):
                raise ValueError(f"expected one {name} for each of {len(queries)} queries, got {len(names)}")
        own = exclude_study or [None] * len(queries)
        patients = exclude_patient or [None] * len(queries)
        excluded = [self.studies.excluded_rows(*pair) for pair in zip(own, patients, strict=True)]
        # For fewer queries, the CPU is faster than the copy of the index.
        engine = to_gpu(self.faiss_index) if len(queries) >= QUERIES_AT_ONCE else self.faiss_index
        blocks = [
            self._search_block(
                engine, queries[start : start + QUERIES_AT_ONCE], count, excluded[start : start + QUERIES_AT_ONCE]
            )
            for start in range(0, len(queries), QUERIES_AT_ONCE)
        ]
        parts = [np.concatenate([getattr(b, name) for b in blocks]) for name in ("rows", "similarity", "valid")]
        return Neighbours(*parts)

    def gather(self, rows: np.ndarray) -> np.ndarray:
        """Return the embeddings of studies, rows of any shape (...) -> (..., E) float32; zeros where a row is -1."""
        return self.embeddings[self.studies.text_of[rows]] * (rows >= 0)[..., None].astype(np.float32)

    def gather_tokens(self, rows: np.ndarray) -> TokenBlock:
        """Return the token features of studies, rows of any shape (...); no token where a row is -1.

        Raises DataError when the index was built without token features.
        """
        if self.tokens is None or self.lengths is None:
            raise DataError(f"{self.folder}: needed token features, but the index holds none; set tokens_per_report")
        texts, present = self.studies.text_of[rows], rows >= 0
        lengths = self.lengths[texts] * present
        mask = np.arange(self.manifest.token_length) < lengths[..., None]
        return TokenBlock(self.tokens[texts] * present[..., None, None].astype(np.float16), mask)

    def _checked(self, queries: np.ndarray, count: int) -> np.ndarray:
        if queries.ndim != 2 or queries.shape[1] != self.manifest.width or len(queries) == 0:
            raise ValueError(f"expected queries of shape (Q >= 1, {self.manifest.width}), got {queries.shape}")
        if not np.isfinite(queries).all():
            raise ValueError("expected finite queries, got NaN or infinity: the image embeddings overflowed")
        if count < 1 or count > len(self):
            raise DataError(
                f"asked for {count} neighbours but the index holds {len(self)} studies ({self.folder}); "
                f"set the number of neighbours to 1..{len(self)} or index more training studies"
            )
        return np.ascontiguousarray(queries, dtype=np.float32)

    def _search_block(
        self, engine: faiss.Index, queries: np.ndarray, count: int, excluded: list[frozenset[int]]
    ) -> Neighbours:
        # Each excluded study removes at most one text, so this many candidates are always enough.
        wanted = min(count + max(map(len, excluded)), len(self.studies.texts))
        engine = engine if wanted <= MOST_ON_GPU else self.faiss_index
        texts, similarity = self._nearest_texts(engine, queries, wanted)
        rows = self.studies.first_rows[texts]
        for query, out in enumerate(excluded):
            for text in {int(self.studies.text_of[row]) for row in out}:
                rows[query, texts[query] == text] = self.studies.first_row(text, excluded=out)
        keep = np.argsort(rows < 0, axis=1, kind="stable")[:, :count]
        rows = np.take_along_axis(rows, keep, 1)
        similarity = np.where(rows >= 0, np.take_along_axis(similarity, keep, 1), np.float32(0))
        padding = ((0, 0), (0, count - rows.shape[1]))
        rows, similarity = np.pad(rows, padding, constant_values=-1), np.pad(similarity, padding)
        return Neighbours(rows, similarity, rows >= 0)

    def _nearest_texts(
        self, engine: faiss.Index, queries: np.ndarray, wanted: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return texts (Q, wanted) and their similarity, best first, ties by text."""
        _, texts = engine.search(queries, wanted)
        short = np.flatnonzero((texts < 0).any(1))
        if len(short):
            # An approximate index may visit too few rows; those queries are answered exactly.
            exact = queries[short] @ self.embeddings.T
            texts[short] = np.argsort(-exact, axis=1, kind="stable")[:, :wanted]
        similarity = np.einsum("qe,qke->qk", queries, self.embeddings[texts])
        order = np.lexsort((texts, -similarity), axis=1)
        return np.take_along_axis(texts, order, 1), np.take_along_axis(similarity, order, 1)


def _open(path: Path, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """Memory-map an array; DataError if it is missing or differs from the manifest."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except DAMAGED_ARRAY as error:
        raise DataError(f"{path}: needed a NumPy array of shape {shape}: {error}") from error
    if array.shape != shape or array.dtype != np.dtype(dtype):
        raise DataError(
            f"{path}: needed {dtype} of shape {shape} as manifest.json says, got {array.dtype} of shape "
            f"{array.shape}; build the index again"
        )
    return np.asarray(array)


def _check_header(path: Path, manifest: IndexManifest) -> bool:
    """Return whether a FAISS file is an exact index.

    Raises DataError if its header, and its size, are not those of so many rows of that width: FAISS believes the counts
    of a file and takes memory for them.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(EXACT.size)
    kind, width, rows = HEADER.unpack_from(head) if len(head) == EXACT.size else (b"", 0, 0)
    exact = kind in FLAT
    fits = kind[:1] == b"I" and manifest.factory != "Flat"
    if exact:
        # The manifest determines the complete header of an exact index.
        *_, trained, metric, count = EXACT.unpack(head)
        fits = (trained, metric, count, size) == (True, 0, rows * width, EXACT.size + 4 * rows * width)
    if not fits or (rows, width) != (manifest.texts, manifest.width):
        raise DataError(
            f"{path}: needed a FAISS index of {manifest.texts} rows of width {manifest.width} as manifest.json says, got "
            f"{rows} of width {width} in {size} bytes; build the index again"
        )
    return exact


def _searched_exactly(path: Path, embeddings: np.ndarray) -> faiss.Index:
    """Return an exact index in place of an approximate one from elsewhere; DataError if that takes too much memory."""
    if embeddings.nbytes > MOST_EXACT_BYTES:
        raise DataError(
            f"{path}: an approximate index from elsewhere is not opened, and to search its {embeddings.nbytes / 2**30:.0f} GB of "
            f"embeddings exactly takes more than {MOST_EXACT_BYTES // 2**30} GB; build the index again: python -m diffrgen.index"
        )
    warnings.warn(
        f"{path}: was not written here, so embeddings.npy is searched exactly in its place; to search by approximation build the "
        "index again: python -m diffrgen.index",
        RuntimeWarning,
        stacklevel=4,
    )
    return exact_index(embeddings)


def _open_faiss(folder: Path, manifest: IndexManifest, embeddings: np.ndarray) -> faiss.Index:
    path = folder / "index.faiss"
    if not _check_header(path, manifest) and not is_own(manifest.files[path.name]):
        return _searched_exactly(path, embeddings)
    # IO_FLAG_MMAP maps inverted lists only; the other one, since FAISS 1.11, maps flat and HNSW codes too.
    flags = getattr(faiss, "IO_FLAG_MMAP_IFC", faiss.IO_FLAG_MMAP) | faiss.IO_FLAG_READ_ONLY
    try:
        index = faiss.read_index(str(path), flags)
    except RuntimeError as error:
        raise DataError(f"{path}: needed a FAISS index; build the index again: {error}") from error
    if (index.ntotal, index.d) != (manifest.texts, manifest.width):
        raise DataError(
            f"{path}: needed {manifest.texts} rows of width {manifest.width} as manifest.json says, got {index.ntotal} "
            f"of width {index.d}; build the index again"
        )
    if manifest.search:
        try:
            set_search(index, manifest.search)
        except RuntimeError as error:
            raise DataError(
                f"{folder / 'manifest.json'}: search: needed parameters that FAISS knows for this index, got {manifest.search!r}"
            ) from error
    return index

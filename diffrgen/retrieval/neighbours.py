"""The neighbours of every study of a split, searched once by the images and stored with the index."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from diffrgen.errors import DataError
from diffrgen.fingerprint import fingerprint
from diffrgen.images import ReadImage, read_resized
from diffrgen.images.resized import RECIPE
from diffrgen.records import Study
from diffrgen.retrieval.index import DAMAGED_ARRAY, Neighbours, RetrievalIndex
from diffrgen.retrieval.options import RetrieverOptions
from diffrgen.retrieval.pairs import query_images
from diffrgen.retrieval.process_group import SINGLE_PROCESS, Arrays, ProcessGroup
from diffrgen.retrieval.retriever import EvaluationTransform, Retriever
from diffrgen.staging import sampled_digest
from diffrgen.workers import worker_options

# Exceptions of numpy and zipfile; RuntimeError for encryption and unknown compression methods.
DAMAGED = (*DAMAGED_ARRAY, KeyError, RuntimeError, zipfile.BadZipFile, zlib.error)


class QueryImages(Dataset[Tensor]):
    """The pixel values of each study's views."""

    def __init__(self, studies: Sequence[Study], transform: EvaluationTransform, read: ReadImage) -> None:
        self.paths = [query_images(study) for study in studies]
        self.transform, self.read = transform, read

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, position: int) -> Tensor:
        """Return (V, C, S, S) float32."""
        return torch.stack([self.transform(self.read(path, self.transform.resize)) for path in self.paths[position]])


def neighbours_of_studies(
    retriever: Retriever,
    index: RetrievalIndex,
    studies: Sequence[Study],
    *,
    split: str,
    options: RetrieverOptions,
    cache: Path | None = None,
    group: ProcessGroup = SINGLE_PROCESS,
    progress: bool = True,
    read: ReadImage = read_resized,
) -> Neighbours:
    """Return the neighbours of each study by its images; a study is never its own neighbour.

    Each process of a `group` embeds and looks up its share of the studies, in the batches that one process would.

    The result is kept as `neighbours-<split>.npz` in `cache` (default: the index's folder) and used again while the
    studies, their image files' names and contents, how images are decoded, the retriever, the index and the options are
    the same.

    Raises DataError when the index was built by another retriever.
    """
    if retriever.fingerprint != index.manifest.retriever:
        raise DataError(
            f"{index.folder}: its reports were embedded by retriever {index.manifest.retriever or 'unknown'}, but the "
            f"images would be embedded by {retriever.fingerprint}; build the index again with this retriever"
        )
    path = (cache or index.folder) / f"neighbours-{split}.npz"
    key = _key(retriever.image_transform, index, studies, options)
    stored = _load(path, key)
    if stored is not None:
        return stored
    own = _share(studies, group, options.batch_size)
    label = f"retrieving for {split}"
    answers = _answers(retriever, index, own, options=options, progress=progress, label=label, read=read)
    parts = list(group.gather(answers, path))
    if group.leads:
        _save(path, key, Neighbours(*map(np.concatenate, zip(*parts, strict=True))))
    group.wait()
    stored = _load(path, key)
    assert stored is not None
    return stored


def _share(studies: Sequence[Study], group: ProcessGroup, batch_size: int) -> Sequence[Study]:
    """Return the studies of this process's share of the batches."""
    starts = group.share(range(0, len(studies), batch_size))
    return studies[starts[0] : starts[-1] + batch_size] if starts else ()


def _answers(
    retriever: Retriever,
    index: RetrievalIndex,
    studies: Sequence[Study],
    *,
    options: RetrieverOptions,
    progress: bool,
    label: str,
    read: ReadImage,
) -> Iterator[Arrays]:
    """Yield rows, similarity and validity of the neighbours of `studies`; nothing if there are none."""
    if not studies:
        return
    queries = embed_images(retriever, studies, options=options, progress=progress, label=label, read=read)
    found = index.search(
        queries,
        options.neighbours,
        exclude_study=[study.id for study in studies],
        exclude_patient=[study.patient_id for study in studies] if options.exclude_patient else None,
    )
    yield found.rows, found.similarity, found.valid


def embed_images(
    retriever: Retriever,
    studies: Sequence[Study],
    *,
    options: RetrieverOptions,
    progress: bool,
    label: str,
    read: ReadImage = read_resized,
) -> np.ndarray:
    """Return the embedding of each study's views, (len(studies), E) float32; see `embed_views`."""
    images = QueryImages(studies, retriever.image_transform, read)
    loader = DataLoader(images, options.batch_size, collate_fn=list, **worker_options(options.workers))
    bar = tqdm(loader, desc=label, unit="batch", disable=not progress)
    return torch.cat([embed_views(retriever, batch) for batch in bar]).numpy()


def embed_views(retriever: Retriever, studies: Sequence[Tensor]) -> Tensor:
    """Return the query of each study, (len(studies), E) float32 on the CPU, from its views (V, C, S, S).

        query = unit(mean over views of e_image(view))

    That of a single view is its embedding, to the bit.
    """
    views = retriever.encode_images(torch.cat(list(studies))).cpu().split([len(study) for study in studies])
    return torch.stack([rows[0] if len(rows) == 1 else F.normalize(rows.mean(0), dim=0) for rows in views])


def _key(
    transform: EvaluationTransform, index: RetrievalIndex, studies: Sequence[Study], options: RetrieverOptions
) -> str:
    # The manifest contains the retriever's fingerprint, already checked, so its weights are not hashed again.
    parts = [index.manifest.retriever, repr(transform), index.manifest.fingerprint, f"recipe {RECIPE}"]
    parts += [str(options.neighbours), str(options.exclude_patient)]
    for study in studies:
        parts += [study.id, study.patient_id or ""]
        parts += [part for image in query_images(study) for part in (image.name, sampled_digest(image))]
    return fingerprint(parts)


def _load(path: Path, key: str) -> Neighbours | None:
    """Return what is stored under `key`; None when nothing is, or what is belongs to another key."""
    if not path.exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as stored:
            if str(stored["key"]) != key:
                return None
            return Neighbours(stored["rows"], stored["similarity"], stored["valid"])
    except DAMAGED as error:
        raise DataError(f"{path}: damaged; delete it, and the neighbours will be found again: {error}") from error


def _save(path: Path, key: str, neighbours: Neighbours) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.stem}.partial.npz")
    np.savez(
        partial,
        key=np.array(key),
        rows=neighbours.rows,
        similarity=neighbours.similarity,
        valid=neighbours.valid,
    )
    os.replace(partial, path)

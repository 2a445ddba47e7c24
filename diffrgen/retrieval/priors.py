"""The prior study of each study as rows of the retriever's embedding space, embedded once and stored with the index."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from diffrgen.errors import DataError
from diffrgen.fingerprint import fingerprint
from diffrgen.images import ReadImage, read_resized
from diffrgen.images.resized import RECIPE
from diffrgen.records import Study
from diffrgen.records.json_text import parse_json
from diffrgen.retrieval.index import DAMAGED_ARRAY
from diffrgen.retrieval.neighbours import embed_images
from diffrgen.retrieval.options import RetrieverOptions
from diffrgen.retrieval.pairs import query_images
from diffrgen.retrieval.retriever import Retriever
from diffrgen.staging import discard, sampled_digest, staged
from diffrgen.text import Rules, clean_report, report_sentences

MAX_SENTENCES = 12
PRIOR_ROWS = 1 + MAX_SENTENCES
FORMAT = 1
IMAGES, SENTENCES, ROWS, KEY = "images.npy", "sentences.npy", "rows.npy", "key.json"


@dataclass(frozen=True)
class Priors:
    """The p prior studies of n studies; `prior` is the index of each study's prior, -1 if a study has none.

    A sentence that many reports hold is embedded once: `rows` are those of each report's sentences in `sentences`, in
    the report's order, -1 behind the last one.
    """

    images: np.ndarray  # (p, E) float32
    sentences: np.ndarray  # (s, E) float32
    rows: np.ndarray  # (p, 12) int64
    prior: np.ndarray  # (n,) int64
    studies: tuple[Study, ...]

    def __len__(self) -> int:
        return len(self.prior)

    def before(self, study: int) -> Study | None:
        """Return the study before `study`, None if there is none."""
        prior = self.prior[study]
        return None if prior < 0 else self.studies[prior]

    def gather(self, study: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows (13, E) float32 of the study before `study` and which are real (13,) bool; see `stack_rows`."""
        prior = self.prior[study]
        if prior < 0:
            return stack_rows(None, self.sentences[:0])
        rows = self.rows[prior]
        return stack_rows(self.images[prior], self.sentences[rows[rows >= 0]])


def stack_rows(image: np.ndarray | None, sentences: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return [image ; sentences] of a prior study as (13, E) float32, and which rows are real (13,) bool.

    image: (E,), or None if there is none; sentences: (<= 12, E). Absent rows are zero.
    """
    features = np.zeros((PRIOR_ROWS, sentences.shape[1]), dtype=np.float32)
    mask = np.zeros(PRIOR_ROWS, dtype=bool)
    if image is not None:
        features[0], mask[0] = image, True
    features[1 : 1 + len(sentences)], mask[1 : 1 + len(sentences)] = sentences, True
    return features, mask


def prior_sentences(report: str, *, rules: Rules) -> list[str]:
    """Return the part of a prior report that is embedded: its first 12 sentences, cleaned by the run's rules.

    A sentence holds one finding with its severity and its side; one vector for the whole report would blur them.
    """
    return report_sentences(clean_report(report, rules=rules))[:MAX_SENTENCES]


def embed_sentences(retriever: Retriever, sentences: Sequence[str], *, batch_size: int = 64) -> np.ndarray:
    """Return the embedding of each sentence, (len(sentences), E) float32."""
    batches = [np.zeros((0, retriever.embedding_width), dtype=np.float32)]
    for start in range(0, len(sentences), batch_size):
        batches.append(retriever.encode_texts(sentences[start : start + batch_size]).cpu().numpy())
    return np.concatenate(batches)


def priors_of_studies(
    retriever: Retriever,
    studies: Sequence[Study],
    known: Mapping[str, Study],
    *,
    folder: Path,
    split: str,
    rules: Rules,
    options: RetrieverOptions,
    progress: bool = True,
    read: ReadImage = read_resized,
) -> Priors:
    """Return the embedded prior study of each study that has one in `known`, studies by id, of any split.

    The result is kept as `priors-<split>/` in `folder`, memory-mapped, and reused while the prior studies, their
    reports' sentences, their image files' names and contents, how images are decoded and the retriever are the same.

    Raises DataError if a study is its own prior study, and if the stored files are damaged.
    """
    before = [None if study.prior_id is None else known.get(study.prior_id) for study in studies]
    own = next((study.id for study, prior in zip(studies, before, strict=True) if prior and prior.id == study.id), None)
    if own is not None:
        raise DataError(f"study {own!r}: needed another study as its prior, got itself")
    earlier = list({prior.id: prior for prior in before if prior is not None}.values())
    position = {study.id: row for row, study in enumerate(earlier)}
    prior = np.array([-1 if study is None else position[study.id] for study in before], dtype=np.int64)
    reports = [prior_sentences(study.report, rules=rules) for study in earlier]
    path, key = folder / f"priors-{split}", _key(retriever, earlier, reports)
    if not _is_stored(path, key):
        images = np.zeros((0, retriever.embedding_width), dtype=np.float32)
        if earlier:
            label = f"prior studies of {split}"
            images = embed_images(retriever, earlier, options=options, progress=progress, label=label, read=read)
        _save(path, key, {IMAGES: images, **_embedded_reports(retriever, reports)})
    return _open(path, prior, earlier, width=retriever.embedding_width)


def _embedded_reports(retriever: Retriever, reports: Sequence[Sequence[str]]) -> dict[str, np.ndarray]:
    """Return each distinct sentence's embedding, and where each report's sentences are among them."""
    distinct = list(dict.fromkeys(sentence for report in reports for sentence in report))
    position = {sentence: row for row, sentence in enumerate(distinct)}
    rows = np.full((len(reports), MAX_SENTENCES), -1, dtype=np.int64)
    for report, row in zip(reports, rows, strict=True):
        row[: len(report)] = [position[sentence] for sentence in report]
    return {SENTENCES: embed_sentences(retriever, distinct), ROWS: rows}


def _key(retriever: Retriever, earlier: Sequence[Study], reports: Sequence[Sequence[str]]) -> str:
    parts = [f"format {FORMAT}", retriever.fingerprint, repr(retriever.image_transform), f"recipe {RECIPE}"]
    for study, sentences in zip(earlier, reports, strict=True):
        files = [part for image in query_images(study) for part in (image.name, sampled_digest(image))]
        parts += [study.id, *files, *sentences]
    return fingerprint(parts)


def _is_stored(path: Path, key: str) -> bool:
    file = path / KEY
    if not file.is_file():
        return False
    try:
        return parse_json(file.read_text(encoding="utf-8")) == key
    except (OSError, ValueError) as error:
        raise DataError(f"{file}: damaged; delete {path}, and its content will be made again: {error}") from error


def _save(path: Path, key: str, arrays: Mapping[str, np.ndarray]) -> None:
    # The new folder appears in one step, so old and new files never mix.
    discard(path)
    with staged(path) as stage:
        for name, array in arrays.items():
            np.save(stage / name, array, allow_pickle=False)
        (stage / KEY).write_text(json.dumps(key), encoding="utf-8")


def _open(path: Path, prior: np.ndarray, earlier: Sequence[Study], *, width: int) -> Priors:
    """Memory-map the arrays of the studies `earlier`; DataError if they are not what `_save` wrote."""
    count = len(earlier)
    try:
        images, sentences, rows = (
            np.load(path / name, mmap_mode="r", allow_pickle=False) for name in (IMAGES, SENTENCES, ROWS)
        )
        fitting = images.shape == (count, width) and sentences.shape == (sentences.shape[0], width)
        if not fitting or rows.shape != (count, MAX_SENTENCES) or rows.max(initial=-1) >= len(sentences):
            raise ValueError(f"shapes {images.shape}, {sentences.shape}, {rows.shape} do not fit {count} studies")
    except (*DAMAGED_ARRAY, IndexError) as error:
        raise DataError(f"{path}: damaged; delete it, and its content will be made again: {error}") from error
    return Priors(images, sentences, rows, prior, tuple(earlier))

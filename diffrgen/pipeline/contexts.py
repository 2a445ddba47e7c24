"""Sections known before a study's images were read, embedded by the retriever's text tower: a row for each section."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from diffrgen.model.choices import ContextName
from diffrgen.records import Sections, Study
from diffrgen.retrieval import Retriever
from diffrgen.retrieval.priors import embed_sentences
from diffrgen.text import Rules, clean_report

HIDE_SECTION = 0.3


@dataclass(frozen=True)
class Contexts:
    """The sections of n studies: `rows` is the index of each in `embeddings`, -1 if a study has none.

    A text that many studies have is embedded once.
    """

    embeddings: np.ndarray  # (t, E) float32
    rows: np.ndarray  # (n, F) int64

    def __len__(self) -> int:
        return len(self.rows)

    def gather(self, study: int) -> tuple[Tensor, Tensor]:
        """Return the rows (F, E) float32 of `study`, zero where absent, and which are there (F,) bool."""
        rows = self.rows[study]
        there = rows >= 0
        features = np.zeros((len(rows), self.embeddings.shape[1]), dtype=np.float32)
        features[there] = self.embeddings[rows[there]]
        return torch.from_numpy(features), torch.from_numpy(there)

    def moments(self) -> tuple[Tensor, Tensor]:
        """Return the mean and the standard deviation (F, E) float32 over the studies that have a section; 0 where none has."""
        found = [self.embeddings[section[section >= 0]].astype(np.float64) for section in self.rows.T]
        mean, std = (
            np.stack([of(rows, axis=0) if len(rows) else np.zeros(rows.shape[1]) for rows in found]) for of in (np.mean, np.std)
        )
        return torch.from_numpy(mean).float(), torch.from_numpy(std).float()


def context_texts(sections: Sections, names: Sequence[ContextName], *, rules: Rules) -> list[str]:
    """Return the cleaned text of each section of `names`, "" if there is none."""
    return [clean_report(getattr(sections, name), rules=rules) for name in names]


def embed_contexts(retriever: Retriever, texts: Sequence[Sequence[str]], *, sections: int) -> Contexts:
    """Embed the texts of n studies, `sections` each; "" is absent."""
    distinct = list(dict.fromkeys(text for study in texts for text in study if text))
    position = {text: row for row, text in enumerate(distinct)}
    rows = np.array([[position.get(text, -1) for text in study] for study in texts], dtype=np.int64)
    return Contexts(embed_sentences(retriever, distinct), rows.reshape(len(texts), sections))


def contexts_of_studies(
    retriever: Retriever, studies: Sequence[Study], names: Sequence[ContextName], *, rules: Rules
) -> Contexts:
    """Return the embedded sections `names` of `studies`."""
    texts = [context_texts(study.sections, names, rules=rules) for study in studies]
    return embed_contexts(retriever, texts, sections=len(names))


def hide_sections(mask: Tensor, generator: torch.Generator) -> Tensor:
    """Return the mask (F,) bool with each section hidden with a probability of 0.3, so that none is relied on."""
    return mask & (torch.rand(mask.shape, generator=generator) >= HIDE_SECTION)


def nearest_contexts(known: Contexts, asked: Contexts) -> np.ndarray:
    """Return for each study of `asked` the study of `known` whose sections are nearest, (n,) int64, the first of several.

    Nearest: by the cosine of the sections' embeddings, one behind the other, absent ones zero. A study without any section
    gets the first study of `known`.
    """
    stacked = [_stacked(contexts) for contexts in (asked, known)]
    return (stacked[0] @ stacked[1].T).argmax(1)


def _stacked(contexts: Contexts) -> np.ndarray:
    """Return the sections of each study as one vector of unit length (n, F E)."""
    padded = np.concatenate([contexts.embeddings, np.zeros_like(contexts.embeddings, shape=(1, contexts.embeddings.shape[1]))])
    vectors = padded[contexts.rows].reshape(len(contexts), -1)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True).clip(1e-12)

"""What the studies of a split are read beside: the retrieved reports and the patient's earlier study."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from diffrgen.pipeline.source import Source
from diffrgen.records import Study
from diffrgen.retrieval import (
    Neighbours,
    Priors,
    RetrievalIndex,
    Retriever,
    RetrieverOptions,
    neighbours_of_studies,
    priors_of_studies,
)
from diffrgen.text import Rules


class References(NamedTuple):
    """One row a study in both; no priors where they were not asked for."""

    neighbours: Neighbours
    priors: Priors | None


def find_references(
    retriever: Retriever,
    index: RetrievalIndex,
    source: Source,
    studies: Sequence[Study],
    *,
    split: str,
    rules: Rules,
    options: RetrieverOptions,
    prior: bool,
    progress: bool = True,
) -> References:
    """Return the references of `studies`, found and embedded now unless the index's folder keeps them for `split`.

    prior: also the earlier studies, of any split of `source`.
    """
    neighbours = neighbours_of_studies(
        retriever, index, studies, split=split, options=options, progress=progress, read=source.read_image
    )
    priors = None
    if prior:
        priors = priors_of_studies(
            retriever,
            studies,
            source.splits.by_id(),
            folder=index.folder,
            split=split,
            rules=rules,
            options=options,
            progress=progress,
            read=source.read_image,
        )
    return References(neighbours, priors)

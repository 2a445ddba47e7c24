"""What the studies of a split are read beside: the retrieved reports and the patient's earlier study."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from diffrgen.pipeline.source import StudySource
from diffrgen.records import Study
from diffrgen.retrieval import (
    Neighbours,
    Priors,
    ProcessGroup,
    RetrievalIndex,
    Retriever,
    RetrieverOptions,
    neighbours_of_studies,
    priors_of_studies,
)
from diffrgen.retrieval.process_group import SINGLE_PROCESS
from diffrgen.text import Rules


class References(NamedTuple):
    """One row a study in both; no priors where they were not asked for."""

    neighbours: Neighbours
    priors: Priors | None


def find_references(
    retriever: Retriever,
    index: RetrievalIndex,
    source: StudySource,
    studies: Sequence[Study],
    *,
    split: str,
    rules: Rules,
    options: RetrieverOptions,
    prior: bool,
    cache: Path | None = None,
    group: ProcessGroup = SINGLE_PROCESS,
    progress: bool = True,
) -> References:
    """Return the references of `studies`, found and embedded now unless `cache` (the index's folder) keeps them for `split`.

    prior: also the earlier studies, of any split of `source`. Every process of a `group` calls this: they look the neighbours
    up together, and the first one embeds the earlier studies.
    """
    neighbours = neighbours_of_studies(
        retriever,
        index,
        studies,
        split=split,
        options=options,
        cache=cache,
        group=group,
        progress=progress,
        read=source.read_image,
    )
    if not prior:
        return References(neighbours, None)
    with group.leader_first():
        priors = priors_of_studies(
            retriever,
            studies,
            source.splits.by_id(),
            folder=cache or index.folder,
            split=split,
            rules=rules,
            options=options,
            progress=progress,
            read=source.read_image,
        )
    return References(neighbours, priors)

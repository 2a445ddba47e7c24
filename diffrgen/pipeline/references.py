"""The references of the studies of a split: the retrieved reports and the patient's prior study."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple

from diffrgen.lock import in_turn
from diffrgen.model.choices import ContextName
from diffrgen.pipeline.contexts import Contexts, contexts_of_studies
from diffrgen.pipeline.run_settings import RunSettings
from diffrgen.pipeline.source import StudySource
from diffrgen.records import Study
from diffrgen.retrieval import (
    Neighbours,
    Priors,
    ProcessGroup,
    RetrievalIndex,
    Retriever,
    neighbours_of_studies,
    priors_of_studies,
)
from diffrgen.retrieval.process_group import SINGLE_PROCESS

LOCK = ".references.lock"


class References(NamedTuple):
    """One row per study in each; priors and contexts are None if not requested."""

    neighbours: Neighbours
    priors: Priors | None
    contexts: Contexts | None = None


def find_references(
    retriever: Retriever,
    index: RetrievalIndex,
    source: StudySource,
    studies: Sequence[Study],
    *,
    split: str,
    settings: RunSettings,
    prior: bool,
    context: Sequence[ContextName] = (),
    cache: Path | None = None,
    group: ProcessGroup = SINGLE_PROCESS,
    progress: bool = True,
) -> References:
    """Return the references of `studies`, found and embedded now unless `cache` (the index's folder) keeps them for `split`.

    settings: of the run; its retriever options and cleaning rules apply. prior: also the prior studies, of any split of
    `source`. context: the sections to embed, each time anew.
    Every process of a `group` calls this: they look the neighbours up together, and the first one embeds the prior studies.
    Commands that ask for references of one run at once take turns.
    """
    folder = cache or index.folder
    notice = f"another process looks up references in {folder}; waiting for it"
    with in_turn(folder / LOCK, notice) if group.leads else nullcontext():
        # The other processes of the group look for stored references only once no other process can be writing them.
        group.wait()
        neighbours = neighbours_of_studies(
            retriever,
            index,
            studies,
            split=split,
            options=settings.retriever,
            cache=cache,
            group=group,
            progress=progress,
            read=source.read_image,
        )
        contexts = contexts_of_studies(retriever, studies, context, rules=settings.rules) if context else None
        if not prior:
            return References(neighbours, None, contexts)
        with group.leader_first():
            priors = priors_of_studies(
                retriever,
                studies,
                source.splits.by_id(),
                folder=folder,
                split=split,
                rules=settings.rules,
                options=settings.retriever,
                progress=progress,
                read=source.read_image,
            )
        return References(neighbours, priors, contexts)

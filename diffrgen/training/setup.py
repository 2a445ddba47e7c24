"""The set-up of a run: options, folder and data, read and checked before any part is made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from accelerate import PartialState
from transformers import set_seed

from diffrgen.errors import DataError
from diffrgen.pipeline.data_digest import check_data
from diffrgen.pipeline.labeler import absolute_checkpoint
from diffrgen.pipeline.options import PHANTOM, DataOptions
from diffrgen.pipeline.run_folder import RunFolder
from diffrgen.pipeline.run_settings import RunSettings
from diffrgen.pipeline.source import StudySource, load_source
from diffrgen.records import MAX_VIEWS, VIEW_KINDS, Split
from diffrgen.retrieval import RetrieverOptions
from diffrgen.training.build import without_absent_parts
from diffrgen.training.interruption import StopRequest
from diffrgen.training.options import TrainOptions


@dataclass(frozen=True)
class RunSetup:
    """The set-up from which the parts of the run in the folder `run` are made and kept there.

    options: those that the data allow for. log: takes a line of text for the terminal. stop: ends the fit of a part with
    its state saved.
    """

    options: TrainOptions
    run: RunFolder
    source: StudySource
    device: torch.device
    log: Callable[[str], None]
    progress: bool
    stop: StopRequest

    @property
    def findings(self) -> int:
        """The number of labeled findings of a study, 14 or 18."""
        return len(self.source.splits.train[0].labels or ())

    def most_views(self) -> int:
        """Return the network's maximum number of images per study: 1 if no study of any split has more."""
        studies = list(self.source.splits)
        counts = Counter(kind for study in studies for kind in study.views)
        several = sum(len(study.images) > 1 for study in studies)
        if several:
            kinds = ", ".join(f"{counts[kind]} {kind}" for kind in VIEW_KINDS if counts[kind])
            self.log(f"views: {several} of {len(studies)} studies have several images; {kinds}")
        return MAX_VIEWS if several else 1

    def names_both_kinds(self) -> bool:
        """Return whether training studies have frontal and lateral views, so that a recogniser can learn which is which."""
        return {"frontal", "lateral"} <= {kind for study in self.source.splits.train for kind in study.views}

    def settings(self) -> RunSettings:
        """Return the settings that the run is kept with."""
        options = self.options
        files = (options.labeler.chexbert, options.labeler.chexbert_vocabulary)
        chexbert, vocabulary = map(absolute_checkpoint, files)
        return RunSettings(
            data=_with_absolute_paths(options.data),
            phantom=options.phantom,
            image=options.image,
            rules=options.text.rules,
            max_tokens=options.text.max_tokens,
            labeler=self.source.labeler.name,
            retriever=retriever_options(options),
            seed=options.seed,
            chexbert=chexbert,
            chexbert_vocabulary=vocabulary,
            generation=options.generation,
            sections=options.text.sections,
        )


def set_up(
    options: TrainOptions,
    run: RunFolder,
    state: PartialState,
    *,
    needed: Sequence[Split] = ("train", "val"),
    progress: bool = True,
    stop: StopRequest | None = None,
) -> RunSetup:
    """Seed this process, read or draw the data, check them, and note in the folder `run` what they are.

    Of several processes the first one reads first. Raises DataError if a split of `needed` is empty, labels differ in
    width, an input that the options ask for is in no study, or `run` was made from other data.
    """
    set_seed(options.seed)
    log = state.print
    log(f"data: {options.data.data}")
    with state.main_process_first():
        source = load_source(
            options.data,
            options.phantom,
            options.labeler,
            cache=options.decoded,
            resize=options.image.resize,
            sections=bool(options.text.sections),
        )
    _check_splits(source, needed)
    options = _without_missing_priors(without_absent_parts(options), source, log)
    _check_context(options, source, log)
    if state.is_main_process:
        check_data(run.path, source, context=options.model.context, keep=True, less=options.data.skip_broken)
    return RunSetup(options, run, source, state.device, log, progress, stop or StopRequest())


def retriever_options(options: TrainOptions) -> RetrieverOptions:
    """Return the retriever's options with what they take from the others: seed, workers, token features."""
    kept = options.text.max_tokens if options.model.retrieved == "tokens" else 0
    return replace(
        options.retriever,
        seed=options.seed,
        workers=options.workers,
        max_tokens=options.text.max_tokens,
        tokens_per_report=options.retriever.tokens_per_report or kept,
    )


def _check_splits(source: StudySource, needed: Sequence[Split]) -> None:
    for split in needed:
        if not source.splits[split]:
            raise DataError(f"{source.splits.source}: needed studies in the split {split!r}, got none")
    widths = {len(study.labels or ()) for study in source.splits}
    if len(widths) > 1:
        raise DataError(f"{source.splits.source}: needed labels of one width, got the widths {sorted(widths)}")


def _without_missing_priors(options: TrainOptions, source: StudySource, log: Callable[[str], None]) -> TrainOptions:
    """Return `options` without the prior where no training study has one: an input that is never seen learns nothing."""
    if not options.model.prior:
        return options
    count = sum(study.prior_id is not None for study in source.splits.train)
    log(f"prior studies: {count} of {len(source.splits.train)} training studies have a prior")
    return options if count else replace(options, model=replace(options.model, prior=False))


def _check_context(options: TrainOptions, source: StudySource, log: Callable[[str], None]) -> None:
    """Raise DataError if no training study has a section of --model.context: the input would never be seen."""
    for name in options.model.context:
        count = sum(bool(getattr(study.sections, name)) for study in source.splits.train)
        log(f"context: {count} of {len(source.splits.train)} training studies have the section {name}")
        if not count:
            raise DataError(
                f"{source.splits.source}: needed training studies with the field {name!r}, which --model.context asks for, "
                "got none; python -m diffrgen.prepare fills it"
            )


def _with_absolute_paths(data: DataOptions) -> DataOptions:
    if data.data == PHANTOM:
        return data
    images, view_index = (None if path is None else path.resolve() for path in (data.images, data.view_index))
    return replace(data, data=str(Path(data.data).resolve()), images=images, view_index=view_index)

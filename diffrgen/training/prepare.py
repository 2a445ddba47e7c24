"""Prepares a run: data, tokenizer, retriever, index, neighbours and the network, each made once and kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from accelerate import PartialState
from transformers import set_seed

from diffrgen.errors import DataError
from diffrgen.images.encoder import encoder_config
from diffrgen.model import DiffRGenForReportGeneration
from diffrgen.model.disease import initial_class_prior
from diffrgen.pipeline.data_digest import check_data
from diffrgen.pipeline.data_summary import DataSummary
from diffrgen.pipeline.dataset import ExampleSettings, StudyDataset
from diffrgen.pipeline.labeler import absolute_checkpoint
from diffrgen.pipeline.references import find_references
from diffrgen.pipeline.run_check import note_parts
from diffrgen.pipeline.run_folder import RunFolder, RunSettings
from diffrgen.pipeline.source import StudySource, load_source
from diffrgen.pipeline.stored_features import CropChoice
from diffrgen.records import MAX_VIEWS, VIEW_KINDS, Split
from diffrgen.retrieval import DualRetriever, ProcessGroup
from diffrgen.training.artifacts import (
    make_index,
    make_retriever,
    make_tokenizer,
    retriever_options,
    with_features,
    with_label_trained_encoder,
)
from diffrgen.training.build import build_model, pretrained_encoder, without_absent_parts
from diffrgen.training.initialisation import find_start
from diffrgen.training.interruption import StopRequest
from diffrgen.training.options import TrainOptions


@dataclass(frozen=True)
class PreparedRun:
    """All that training and evaluation need."""

    settings: RunSettings
    data: DataSummary
    model: DiffRGenForReportGeneration
    train: StudyDataset
    val: StudyDataset
    source: StudySource


def prepare(
    options: TrainOptions,
    run: RunFolder,
    state: PartialState,
    *,
    progress: bool = True,
    stop: StopRequest | None = None,
) -> PreparedRun:
    """Read or draw the data, then load from `run` what an earlier start left there and make what it did not.

    Of several processes, all of which call this, the first one makes data, tokenizer and retriever, and all together
    the index and the neighbours. A `stop` while the retriever is fitted saves how far that is; TrainingStopped.
    """
    set_seed(options.seed)
    say, device = state.print, state.device
    say(f"data: {options.data.data}")
    with state.main_process_first():
        source = load_source(
            options.data,
            options.phantom,
            options.labeler,
            cache=options.decoded,
            resize=options.image.resize,
            sections=bool(options.text.sections),
        )
    _check_splits(source)
    options = _without_missing_priors(without_absent_parts(options), source, say)
    _check_context(options, source, say)
    if state.is_main_process:
        check_data(run.path, source, context=options.model.context, keep=True, less=options.data.skip_broken)
    settings = _settings(options, source)
    with state.main_process_first():
        start = find_start(options, run)
        if options.pretrain.epochs:
            options = with_label_trained_encoder(
                options, run, source, device=device, progress=progress, stop=stop or StopRequest()
            )
    # Read once: the layout of a pretrained encoder comes with its weights.
    encoder = pretrained_encoder(options) if start is None else start.encoder(options)
    layout = encoder_config(options.model.encoder) if encoder is None else encoder.config
    transform = options.image.transform(layout.num_channels, train=True)

    with state.main_process_first():
        tokenizer = make_tokenizer(options, run, source)
        say(f"tokenizer: {len(tokenizer)} tokens")
        if options.freeze == "encoder":
            assert encoder is not None  # TrainOptions refuses a random one
            source = with_features(options, source, encoder, transform, device=device, progress=progress)
        # A frozen encoder is the retriever's image tower too.
        tower = layout if encoder is None or options.freeze != "encoder" else encoder
        retriever = make_retriever(
            options, run, source, tokenizer, tower, device=device, progress=progress, stop=stop or StopRequest()
        ).to(device)
    if options.freeze == "encoder":
        assert isinstance(retriever, DualRetriever)  # fitted: TrainOptions refuses another one
        # Takes an image's stored maps where a transform takes the image.
        choice: Any = CropChoice()
        transform = retriever.image_transform = choice
    group = ProcessGroup.of_processes()
    index = make_index(options, run, source, retriever, group, progress=progress)
    say(f"index: {len(index)} training studies")

    sources = ExampleSettings(
        transform=transform,
        tokenizer=tokenizer,
        rules=options.text.rules,
        max_tokens=options.text.max_tokens,
        index=index,
        token_features=options.model.retrieved == "tokens",
        read=source.read_image,
        findings=len(source.splits.train[0].labels or ()),
        sections=bool(options.text.sections),
    )
    evaluation = replace(sources, transform=replace(transform, train=False))
    sources = replace(sources, transform=replace(transform, train=True))

    def dataset(split: Split, parts: ExampleSettings) -> StudyDataset:
        studies = source.splits[split]
        neighbours, priors, contexts = find_references(
            retriever,
            index,
            source,
            studies,
            split=split,
            rules=options.text.rules,
            options=retriever_options(options),
            prior=options.model.prior,
            context=options.model.context,
            group=group,
            progress=progress,
        )
        return StudyDataset(studies, neighbours, parts, priors=priors, contexts=contexts, seed=options.seed)

    train, val = dataset("train", sources), dataset("val", evaluation)
    # Once more, so that the weights do not depend on whether the retriever was fitted or found.
    set_seed(options.seed)
    views = _most_views(source, say)
    recogniser = views > 1 and _names_both_kinds(source)
    build = build_model if start is None else partial(start.network, say=say)
    model = build(
        options, tokenizer, retriever, findings=sources.findings, views=views, view_recogniser=recogniser
    )
    # And that the noise of training does not depend on what parts were drawn.
    set_seed(options.seed)
    note_parts(model.config, run.path, index)
    model.classifier.class_prior.copy_(initial_class_prior(train.states))
    return PreparedRun(settings, DataSummary.of(options.data, source), model, train, val, source)


def _check_splits(source: StudySource) -> None:
    """Raise DataError where there is nothing to train on, to choose the best by, or where label widths differ."""
    for split in ("train", "val"):
        if not source.splits[split]:
            raise DataError(f"{source.splits.source}: needed studies in the split {split!r}, got none")
    widths = {len(study.labels or ()) for study in source.splits}
    if len(widths) > 1:
        raise DataError(f"{source.splits.source}: needed labels of one width, got the widths {sorted(widths)}")


def _most_views(source: StudySource, say: Callable[[str], None]) -> int:
    """Return the most images of a study that the network is to take: 1 where no study of any split has more."""
    studies = list(source.splits)
    counts = Counter(kind for study in studies for kind in study.views)
    several = sum(len(study.images) > 1 for study in studies)
    if several:
        kinds = ", ".join(f"{counts[kind]} {kind}" for kind in VIEW_KINDS if counts[kind])
        say(f"views: {several} of {len(studies)} studies have several images; {kinds}")
    return MAX_VIEWS if several else 1


def _names_both_kinds(source: StudySource) -> bool:
    """Return whether training studies have frontal and lateral views, so that a recogniser can learn which is which."""
    return {"frontal", "lateral"} <= {kind for study in source.splits.train for kind in study.views}


def _without_missing_priors(options: TrainOptions, source: StudySource, say: Callable[[str], None]) -> TrainOptions:
    """Return `options` without the prior where no training study has one: an input that is never seen learns nothing."""
    if not options.model.prior:
        return options
    count = sum(study.prior_id is not None for study in source.splits.train)
    say(f"earlier studies: {count} of {len(source.splits.train)} training studies have one")
    return options if count else replace(options, model=replace(options.model, prior=False))


def _check_context(options: TrainOptions, source: StudySource, say: Callable[[str], None]) -> None:
    """Raise DataError where no training study has a section of --model.context: the input would never be seen."""
    for name in options.model.context:
        count = sum(bool(getattr(study.sections, name)) for study in source.splits.train)
        say(f"context: {count} of {len(source.splits.train)} training studies have the section {name}")
        if not count:
            raise DataError(
                f"{source.splits.source}: needed training studies with the field {name!r}, which --model.context asks for, "
                "got none; python -m diffrgen.prepare fills it"
            )


def _settings(options: TrainOptions, source: StudySource) -> RunSettings:
    data = options.data
    if data.data != "phantom":
        images, view_index = (None if path is None else path.resolve() for path in (data.images, data.view_index))
        data = replace(data, data=str(Path(data.data).resolve()), images=images, view_index=view_index)
    files = (options.labeler.chexbert, options.labeler.chexbert_vocabulary)
    chexbert, vocabulary = map(absolute_checkpoint, files)
    return RunSettings(
        data=data,
        phantom=options.phantom,
        image=options.image,
        rules=options.text.rules,
        max_tokens=options.text.max_tokens,
        labeler=source.labeler.name,
        retriever=retriever_options(options),
        seed=options.seed,
        chexbert=chexbert,
        chexbert_vocabulary=vocabulary,
        generation=options.generation,
        sections=options.text.sections,
    )

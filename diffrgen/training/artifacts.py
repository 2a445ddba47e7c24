"""What a run is made of besides its weights: tokenizer, retriever, index and stored features, each made once and kept."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from transformers import PretrainedConfig, PreTrainedTokenizerFast

from diffrgen.images import ImageTransform
from diffrgen.images.encoder import PatchEncoder, encoder_config
from diffrgen.pipeline.run_folder import RunFolder
from diffrgen.pipeline.source import StudySource
from diffrgen.pipeline.stored_features import CropChoice, FeatureReader, stored_features
from diffrgen.pretraining import label_trained_encoder, read_labelled, studies_as_labelled
from diffrgen.retrieval import (
    ProcessGroup,
    RetrievalIndex,
    Retriever,
    RetrieverOptions,
    build_index,
    fit_retriever,
    load_retriever,
)
from diffrgen.retrieval.fit_state import FitCheckpoint, FitStopped
from diffrgen.staging import cache_root, staged
from diffrgen.text import clean_report, load_tokenizer, train_tokenizer, with_impression_token
from diffrgen.training.build import DECODERS
from diffrgen.training.interruption import StopRequest, TrainingStopped
from diffrgen.training.options import RANDOM_ENCODERS, TrainOptions


def with_label_trained_encoder(
    options: TrainOptions,
    run: RunFolder,
    source: StudySource,
    *,
    device: torch.device,
    progress: bool,
    stop: StopRequest,
) -> TrainOptions:
    """Return `options` whose encoder is the run's own, trained on the labels of single images; it is made where it is not
    there yet, and kept there."""
    if not run.encoder_path.is_dir():
        name = options.model.encoder
        encoder = PatchEncoder(encoder_config(name)) if name in RANDOM_ENCODERS else PatchEncoder.from_pretrained(name)
        train = studies_as_labelled(source.splits.train)
        if options.extra_labelled is not None and options.extra_images is not None:
            train += read_labelled(options.extra_labelled, options.extra_images)
        checkpoint = FitCheckpoint(run.encoder_fit_path, stop=lambda: bool(stop.number), what="image encoder")
        with _saved_where_stopped(run, stop):
            label_trained_encoder(
                run.encoder_path,
                encoder,
                train,
                studies_as_labelled(source.splits.val),
                transform=options.image.transform(encoder.channels, train=True),
                read=source.read_image,
                options=options.pretrain,
                precision=options.precision,
                workers=options.workers,
                seed=options.seed,
                device=device,
                progress=progress,
                checkpoint=checkpoint,
            )
        checkpoint.discard()
    return replace(options, model=replace(options.model, encoder=str(run.encoder_path)))


@contextmanager
def _saved_where_stopped(run: RunFolder, stop: StopRequest) -> Iterator[None]:
    """Within the block a signal is noted, so that a fit can save where it stands; TrainingStopped then says how to go on."""
    try:
        with stop.noted():
            yield
    except FitStopped as stopped:
        go_on = f"go on with: python -m diffrgen.train --resume --output {run.path}"
        raise TrainingStopped(stop.number, f"stopped: {stopped}, which is saved; {go_on}") from stopped


def with_features(
    options: TrainOptions,
    source: StudySource,
    encoder: PatchEncoder,
    transform: ImageTransform,
    *,
    device: torch.device,
    progress: bool,
) -> StudySource:
    """Return `source` whose images are read as the frozen encoder's features; training ones have several crops."""
    training = dict.fromkeys(path for study in source.splits.train for path in study.images)
    others = dict.fromkeys(path for study in source.splits for path in study.images if path not in training)
    root = options.decoded.image_cache_folder or cache_root()
    parts = [
        stored_features(
            root,
            encoder,
            tuple(paths),
            read=source.read_image,
            transform=transform,
            crops=crops,
            device=device,
            progress=progress,
        )
        for paths, crops in ((training, options.stored_crops), (others, 0))
        if paths
    ]
    # Feature maps stand where the image of a file stands; `CropChoice` takes them.
    read: Any = FeatureReader(tuple(parts)).read
    return replace(source, read_image=read)


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


def make_tokenizer(options: TrainOptions, run: RunFolder, source: StudySource) -> PreTrainedTokenizerFast:
    """Return the tokenizer that the run holds, else a pretrained one or one trained on the reports, and keep it there."""
    # The last file that is put in its place.
    if (run.path / "tokenizer_config.json").is_file():
        return run.tokenizer()
    pretrained: str | Path | None = options.text.tokenizer
    if pretrained is None and options.model.decoder not in DECODERS:
        # The embeddings of a pretrained decoder belong to its own vocabulary.
        pretrained = options.model.decoder
    if pretrained is not None:
        tokenizer = load_tokenizer(pretrained)
    else:
        raw = chain.from_iterable(
            (study.report, *(getattr(study.sections, name) for name in options.model.context))
            for study in source.splits.train
        )
        texts = (clean_report(text, rules=options.text.rules) for text in raw)
        tokenizer = train_tokenizer(texts, vocab_size=options.text.vocab_size, min_frequency=options.text.min_frequency)
    if options.text.sections:
        tokenizer = with_impression_token(tokenizer)
    with staged(run.path) as stage:
        tokenizer.save_pretrained(stage)
    return tokenizer


def make_retriever(
    options: TrainOptions,
    run: RunFolder,
    source: StudySource,
    tokenizer: PreTrainedTokenizerFast,
    encoder: PretrainedConfig | PatchEncoder,
    *,
    device: torch.device,
    progress: bool,
    stop: StopRequest,
) -> Retriever:
    """Return the retriever that the run holds, else the one that the options name or a fitted one, and keep it there."""
    if run.retriever_path.is_dir():
        return run.retriever()
    if options.retriever_path is not None:
        retriever = load_retriever(options.retriever_path)
        with staged(run.retriever_path) as stage:
            retriever.save(stage)
        return retriever
    channels = encoder.channels if isinstance(encoder, PatchEncoder) else encoder.num_channels
    checkpoint = FitCheckpoint(run.retriever_fit_path, stop=lambda: bool(stop.number))
    with _saved_where_stopped(run, stop):
        retriever, _ = fit_retriever(
            run.retriever_path,
            source.splits.train,
            source.splits.val,
            tokenizer=tokenizer,
            encoder=encoder,
            transform=options.image.transform(channels, train=True),
            choice=CropChoice() if options.freeze == "encoder" else None,
            rules=options.text.rules,
            options=retriever_options(options),
            device=device,
            progress=progress,
            read=source.read_image,
            checkpoint=checkpoint,
        )
    checkpoint.discard()
    return retriever


def make_index(
    options: TrainOptions, run: RunFolder, source: StudySource, retriever: Retriever, group: ProcessGroup, *, progress: bool
) -> RetrievalIndex:
    """Return the index that the run holds, else one of the training reports, and keep it there."""
    if run.index_path.is_dir():
        return run.index()
    return build_index(
        run.index_path,
        retriever,
        source.splits.train,
        rules=options.text.rules,
        options=retriever_options(options),
        group=group,
        progress=progress,
    )

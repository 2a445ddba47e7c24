"""The parts of a run other than its weights: tokenizer, retriever, index and stored features, each made once and kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import cast

from transformers import PretrainedConfig, PreTrainedTokenizerFast

from diffrgen.fitting.checkpoint import FitCheckpoint, FitStopped
from diffrgen.images import ImageTransform, ReadImage
from diffrgen.images.encoder import PatchEncoder, encoder_config
from diffrgen.pipeline.run_folder import RunFolder
from diffrgen.pipeline.stored_features import CropChoice, FeatureReader, stored_features
from diffrgen.pretraining import FitSettings, label_trained_encoder, read_labelled, studies_as_labelled
from diffrgen.records import Study
from diffrgen.retrieval import (
    DualRetriever,
    ProcessGroup,
    RetrievalIndex,
    Retriever,
    StudyPairs,
    build_dual_encoder,
    build_index,
    fit_retriever,
    load_retriever,
)
from diffrgen.staging import cache_root, staged
from diffrgen.text import clean_report, load_tokenizer, train_tokenizer, with_impression_token
from diffrgen.training.build import DECODERS
from diffrgen.training.interruption import StopRequest, TrainingStopped
from diffrgen.training.options import RANDOM_ENCODERS
from diffrgen.training.setup import RunSetup, retriever_options


def with_label_trained_encoder(setup: RunSetup) -> RunSetup:
    """Return `setup` with the run's own encoder, trained on the labels of single images, where --pretrain.epochs asks for it."""
    options, run = setup.options, setup.run
    if not options.pretrain.epochs:
        return setup
    if not run.encoder_path.is_dir():
        _train_encoder_on_labels(setup)
    own = replace(options, model=replace(options.model, encoder=str(run.encoder_path)))
    return replace(setup, options=own)


def _train_encoder_on_labels(setup: RunSetup) -> None:
    options, run, splits = setup.options, setup.run, setup.source.splits
    name = options.model.encoder
    encoder = PatchEncoder(encoder_config(name)) if name in RANDOM_ENCODERS else PatchEncoder.from_pretrained(name)
    train = studies_as_labelled(splits.train)
    if options.extra_labelled is not None and options.extra_images is not None:
        train += read_labelled(options.extra_labelled, options.extra_images)
    with _resumable(run, run.encoder_fit_path, setup.stop, what="image encoder") as checkpoint:
        label_trained_encoder(
            run.encoder_path,
            encoder,
            train,
            studies_as_labelled(splits.val),
            FitSettings(
                options.pretrain,
                precision=options.precision,
                workers=options.workers,
                seed=options.seed,
                device=setup.device,
                progress=setup.progress,
                checkpoint=checkpoint,
            ),
            transform=options.image.transform(encoder.channels, train=True),
            read=setup.source.read_image,
        )


@contextmanager
def _resumable(run: RunFolder, path: Path, stop: StopRequest, *, what: str) -> Iterator[FitCheckpoint]:
    """Yield the checkpoint at `path` of a fit of `what`, which is removed when the block, the fit, is done.

    Within it a signal is noted, so that the fit can save where it stands; TrainingStopped then names the command that continues.
    """
    checkpoint = FitCheckpoint(path, stop=lambda: bool(stop.number), what=what)
    try:
        with stop.noted():
            yield checkpoint
    except FitStopped as stopped:
        go_on = f"continue with: python -m diffrgen.train --resume --output {run.path}"
        raise TrainingStopped(stop.number, f"stopped: {stopped}, which is saved; {go_on}") from stopped
    checkpoint.discard()


def with_features(setup: RunSetup, encoder: PatchEncoder) -> RunSetup:
    """Return `setup` whose images are read as the features of the frozen `encoder`; training ones have several crops.

    They are feature maps where an image of a file is expected: `crop_choice` takes them.
    """
    options, source = setup.options, setup.source
    training = dict.fromkeys(path for study in source.splits.train for path in study.images)
    others = dict.fromkeys(path for study in source.splits for path in study.images if path not in training)
    parts = [
        stored_features(
            options.decoded.image_cache_folder or cache_root(),
            encoder,
            tuple(paths),
            read=source.read_image,
            transform=options.image.transform(encoder.channels, train=True),
            crops=crops,
            device=setup.device,
            progress=setup.progress,
        )
        for paths, crops in ((training, options.stored_crops), (others, 0))
        if paths
    ]
    return replace(setup, source=replace(source, read_image=cast(ReadImage, FeatureReader(tuple(parts)).read)))


def reading_features(retriever: Retriever) -> Retriever:
    """Return `retriever`, which takes stored features where it takes images."""
    assert isinstance(retriever, DualRetriever)  # fitted: TrainOptions refuses another one for a frozen encoder
    retriever.image_transform = crop_choice()
    return retriever


def crop_choice() -> ImageTransform:
    """Return the replacement of the image transform for images that are read as stored features."""
    return cast(ImageTransform, CropChoice())


def make_tokenizer(setup: RunSetup) -> PreTrainedTokenizerFast:
    """Return the tokenizer that the run holds, else a pretrained one or one trained on the reports, and keep it there."""
    options, run = setup.options, setup.run
    # `staged` moves this file last, so the tokenizer is complete.
    if (run.path / "tokenizer_config.json").is_file():
        return run.tokenizer()
    pretrained: str | Path | None = options.text.tokenizer
    if pretrained is None and options.model.decoder not in DECODERS:
        # A pretrained decoder's embeddings belong to its own vocabulary.
        pretrained = options.model.decoder
    tokenizer = _train_tokenizer(setup) if pretrained is None else load_tokenizer(pretrained)
    if options.text.sections:
        tokenizer = with_impression_token(tokenizer)
    with staged(run.path) as stage:
        tokenizer.save_pretrained(stage)
    return tokenizer


def _train_tokenizer(setup: RunSetup) -> PreTrainedTokenizerFast:
    """Return a tokenizer of the training reports and of the sections that the network takes."""
    text, context = setup.options.text, setup.options.model.context
    raw = chain.from_iterable(
        (study.report, *(getattr(study.sections, name) for name in context)) for study in setup.source.splits.train
    )
    texts = (clean_report(one, rules=text.rules) for one in raw)
    return train_tokenizer(texts, vocab_size=text.vocab_size, min_frequency=text.min_frequency)


def make_retriever(
    setup: RunSetup, tokenizer: PreTrainedTokenizerFast, encoder: PretrainedConfig | PatchEncoder
) -> Retriever:
    """Return the retriever that the run holds, else the one that the options name or a fitted one, and keep it there.

    encoder: the layout of the image tower, or a frozen encoder to take its place.
    """
    options, run = setup.options, setup.run
    if run.retriever_path.is_dir():
        return run.retriever()
    if options.retriever_path is not None:
        retriever = load_retriever(options.retriever_path)
        with staged(run.retriever_path) as stage:
            retriever.save(stage)
        return retriever
    with _resumable(run, run.retriever_fit_path, setup.stop, what="retriever") as checkpoint:
        return _fitted_retriever(setup, tokenizer, encoder, checkpoint)


def _fitted_retriever(
    setup: RunSetup,
    tokenizer: PreTrainedTokenizerFast,
    encoder: PretrainedConfig | PatchEncoder,
    checkpoint: FitCheckpoint,
) -> Retriever:
    options = retriever_options(setup.options)
    channels = encoder.channels if isinstance(encoder, PatchEncoder) else encoder.num_channels
    transform = setup.options.image.transform(channels, train=True)
    model = build_dual_encoder(tokenizer, encoder=encoder, transform=transform, options=options)
    # Where the encoder is frozen, stored features are read instead of pixels.
    choice = crop_choice() if setup.options.freeze == "encoder" else transform
    splits = setup.source.splits
    train = _pairs(setup, splits.train, tokenizer, replace(choice, train=True))
    validation = _pairs(setup, splits.val, tokenizer, replace(choice, train=False)) if splits.val else None
    retriever, _ = fit_retriever(
        setup.run.retriever_path,
        model,
        tokenizer,
        train,
        validation,
        options=options,
        device=setup.device,
        progress=setup.progress,
        checkpoint=checkpoint,
    )
    return retriever


def _pairs(
    setup: RunSetup, studies: Sequence[Study], tokenizer: PreTrainedTokenizerFast, transform: ImageTransform
) -> StudyPairs:
    """Return the pairs of images and reports that the retriever is fitted to, or measured on."""
    return StudyPairs(
        studies,
        transform=transform,
        tokenizer=tokenizer,
        rules=setup.options.text.rules,
        max_tokens=setup.options.text.max_tokens,
        seed=setup.options.seed,
        read=setup.source.read_image,
    )


def make_index(setup: RunSetup, retriever: Retriever, group: ProcessGroup) -> RetrievalIndex:
    """Return the index that the run holds, else one of the training reports, and keep it there."""
    if setup.run.index_path.is_dir():
        return setup.run.index()
    return build_index(
        setup.run.index_path,
        retriever,
        setup.source.splits.train,
        rules=setup.options.text.rules,
        options=retriever_options(setup.options),
        group=group,
        progress=setup.progress,
    )

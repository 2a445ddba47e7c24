"""Assembles a run from its set-up: tokenizer, encoder, retriever, index, data sets and network, each made once and kept."""

from __future__ import annotations

from dataclasses import dataclass, replace

from accelerate import PartialState
from transformers import PretrainedConfig, PreTrainedTokenizerFast, set_seed

from diffrgen.images import ImageTransform
from diffrgen.images.encoder import PatchEncoder, encoder_config
from diffrgen.model import DiffRGenForReportGeneration
from diffrgen.model.disease import initial_class_prior
from diffrgen.pipeline.data_summary import DataSummary
from diffrgen.pipeline.dataset import ExampleSettings, StudyDataset
from diffrgen.pipeline.references import find_references
from diffrgen.pipeline.run_check import note_parts
from diffrgen.pipeline.run_settings import RunSettings
from diffrgen.pipeline.source import StudySource
from diffrgen.records import Split
from diffrgen.retrieval import ProcessGroup, RetrievalIndex, Retriever
from diffrgen.training.artifacts import (
    crop_choice,
    make_index,
    make_retriever,
    make_tokenizer,
    reading_features,
    with_features,
    with_label_trained_encoder,
)
from diffrgen.training.build import DataShape, build_model, pretrained_encoder
from diffrgen.training.initialisation import Start, find_start
from diffrgen.training.promptmrg_checkpoint import PromptMRGStart
from diffrgen.training.setup import RunSetup


@dataclass(frozen=True)
class TrainingParts:
    """All that training and evaluation need."""

    settings: RunSettings
    data: DataSummary
    model: DiffRGenForReportGeneration
    train: StudyDataset
    val: StudyDataset
    source: StudySource


def assemble(setup: RunSetup) -> TrainingParts:
    """Load from the folder of the run what an earlier start left there, and make what it did not.

    Of several processes, all of which call this, the first one makes tokenizer and retriever, and all together the index and
    the neighbours. A stop while a part is fitted saves how far that is; TrainingStopped. Raises DataError for parts that do not
    fit each other.
    """
    run, state = setup.run, PartialState()
    settings = setup.settings()
    with state.main_process_first():
        start = find_start(setup.options, run)
        setup = with_label_trained_encoder(setup)
    encoder = pretrained_encoder(setup.options) if start is None else start.encoder(setup.options)
    with state.main_process_first():
        tokenizer = make_tokenizer(setup)
        setup.log(f"tokenizer: {len(tokenizer)} tokens")
        setup, retriever = _with_retriever(setup, tokenizer, encoder)
    group = ProcessGroup.of_processes()
    index = make_index(setup, retriever, group)
    setup.log(f"index: {len(index)} training studies")
    examples = _example_settings(setup, tokenizer, encoder, index)
    train = _data_set(setup, "train", examples, retriever, group)
    val = _data_set(setup, "val", replace(examples, transform=replace(examples.transform, train=False)), retriever, group)
    model = _network(setup, start, encoder, tokenizer, retriever)
    note_parts(model.config, run.path, index)
    model.classifier.class_prior.copy_(initial_class_prior(train.states))
    # The weights of an initial run come with their own mean and standard deviation.
    if model.context is not None and train.contexts is not None and not model.context.is_standardised:
        model.context.standardise(*train.contexts.moments())
    return TrainingParts(settings, DataSummary.of(setup.options.data, setup.source), model, train, val, setup.source)


def _with_retriever(
    setup: RunSetup, tokenizer: PreTrainedTokenizerFast, encoder: PatchEncoder | None
) -> tuple[RunSetup, Retriever]:
    """Return the retriever on the setup's device, and the setup whose images it reads: of a frozen encoder, features.

    A frozen encoder is the retriever's image tower too.
    """
    if setup.options.freeze == "nothing":
        return setup, make_retriever(setup, tokenizer, _layout(setup, encoder)).to(setup.device)
    assert encoder is not None  # TrainOptions refuses a random one
    setup = with_features(setup, encoder)
    return setup, reading_features(make_retriever(setup, tokenizer, encoder).to(setup.device))


def _layout(setup: RunSetup, encoder: PatchEncoder | None) -> PretrainedConfig:
    return encoder_config(setup.options.model.encoder) if encoder is None else encoder.config


def _example_settings(
    setup: RunSetup, tokenizer: PreTrainedTokenizerFast, encoder: PatchEncoder | None, index: RetrievalIndex
) -> ExampleSettings:
    """Return what training examples are made with."""
    options = setup.options
    return ExampleSettings(
        transform=_training_transform(setup, encoder),
        tokenizer=tokenizer,
        rules=options.text.rules,
        max_tokens=options.text.max_tokens,
        index=index,
        token_features=options.model.retrieved == "tokens",
        read=setup.source.read_image,
        findings=setup.findings,
        severities=options.model.severities,
        sections=bool(options.text.sections),
        single_view=options.image.single_view,
    )


def _training_transform(setup: RunSetup, encoder: PatchEncoder | None) -> ImageTransform:
    if setup.options.freeze == "encoder":
        return replace(crop_choice(), train=True)
    return setup.options.image.transform(_layout(setup, encoder).num_channels, train=True)


def _data_set(
    setup: RunSetup, split: Split, examples: ExampleSettings, retriever: Retriever, group: ProcessGroup
) -> StudyDataset:
    """Return the examples of a split with their neighbours, prior studies and context."""
    options, studies = setup.options, setup.source.splits[split]
    neighbours, priors, contexts = find_references(
        retriever,
        examples.index,
        setup.source,
        studies,
        split=split,
        settings=setup.settings(),
        prior=options.model.prior,
        context=options.model.context,
        group=group,
        progress=setup.progress,
    )
    return StudyDataset(studies, neighbours, examples, priors=priors, contexts=contexts, seed=options.seed)


def _network(
    setup: RunSetup,
    start: Start | PromptMRGStart | None,
    encoder: PatchEncoder | None,
    tokenizer: PreTrainedTokenizerFast,
    retriever: Retriever,
) -> DiffRGenForReportGeneration:
    """Return the network of the options, with the weights of `start` where there is one."""
    # Seed again, so that the weights do not depend on whether the retriever was fitted or loaded.
    set_seed(setup.options.seed)
    views = setup.most_views()
    shape = DataShape(setup.findings, views, view_recogniser=views > 1 and setup.names_both_kinds())
    if start is None:
        model = build_model(setup.options, tokenizer, retriever, encoder, shape)
    else:
        model = start.network(setup.options, tokenizer, retriever, shape, log=setup.log)
    # And again, so that the noise of training does not depend on which parts were drawn.
    set_seed(setup.options.seed)
    return model

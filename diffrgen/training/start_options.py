"""The options that an initial run (`--init`) fixes, and those that a training from it may set."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import TYPE_CHECKING

from diffrgen.errors import DataError
from diffrgen.pipeline.options import DataOptions, LabelerOptions
from diffrgen.training.options import BUILD_ONLY, ModelOptions, TrainOptions
from diffrgen.training.presets import preset_options
from diffrgen.training.resume import option_differences, option_flag

if TYPE_CHECKING:
    from diffrgen.model import DiffRGenConfig

# All other options of these three groups follow from the weights, or were fitted with them.
OF_THE_NETWORK = (
    *("prior", "context", "finding_queries", "severities", "dropout", "logit_adjustment"),
    *("disease_weight", "contrast_weight", "contrast_form"),
    *("label_smoothing", "finding_weight", "learn_marks"),
)
OF_THE_RETRIEVER = (
    *("neighbours", "index_factory", "index_search", "exclude_patient", "precision", "workers", "batch_size", "seed"),
)


def recorded_options(stored: TrainOptions, config: DiffRGenConfig) -> TrainOptions:
    """Return the options of a finished run as its network has them: `stored` ones, which it may not all have followed."""
    known = {one.name: getattr(config, one.name) for one in fields(ModelOptions) if one.name not in BUILD_ONLY}
    model = replace(stored.model, warm_start=False, **known)
    return replace(stored, model=model, retriever_path=None)


def defaults_after(start: TrainOptions, init: str, *, base: TrainOptions | None = None) -> TrainOptions:
    """Return the defaults of a training from the run `init`, which was trained with the options `start`.

    base: a preset's options, for what the start does not fix; default: the start's own. Data, output and the machine's
    options are never the start's.
    """
    own = preset_options((base or start).preset)
    base = base or replace(start, workers=own.workers, phantom=own.phantom, decoded=own.decoded, seed=own.seed)
    return replace(
        with_fixed(base, start),
        init=init,
        output=own.output,
        data=DataOptions(),
        labeler=LabelerOptions(),
        resume=False,
        overwrite=False,
        max_steps=None,
        checkpoint_every=None,
        track=(),
        # The initial run provides the encoder.
        pretrain=replace(base.pretrain, epochs=0),
        extra_labelled=None,
        extra_images=None,
        image=start.image,
        text=start.text,
        retriever=start.retriever,
        model=start.model,
        generation=start.generation,
        calibrate_prompts=start.calibrate_prompts,
    )


def with_fixed(options: TrainOptions, start: TrainOptions) -> TrainOptions:
    """Return `options` with everything that a start with the options `start` fixes."""
    model = {name: getattr(options.model, name) for name in OF_THE_NETWORK}
    retriever = {name: getattr(options.retriever, name) for name in OF_THE_RETRIEVER}
    return replace(
        options,
        retriever_path=None,
        image=replace(start.image, rotation=options.image.rotation),
        text=replace(start.text, max_tokens=options.text.max_tokens),
        model=replace(start.model, **model),
        retriever=replace(start.retriever, **retriever),
    )


def check_agrees(options: TrainOptions, start: TrainOptions) -> None:
    """Raise DataError that names every option that contradicts the start `options.init`, with both values."""
    found = [
        f"{option_flag(name)} (start: {before}, got {now})"
        for name, before, now in option_differences(with_fixed(options, start), options)
    ]
    if found:
        raise DataError(
            f"--init {options.init}: the initial run fixes tokenizer, text rules, images, retriever and network; "
            f"contradicting: {', '.join(found)}. Leave them out, or train without --init"
        )

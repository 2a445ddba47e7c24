"""The presets: every default of `python -m diffrgen.train`, in one place."""

from __future__ import annotations

from pathlib import Path

from diffrgen.phantom import PhantomOptions
from diffrgen.pipeline.options import GenerationOptions, ImageOptions, TextOptions
from diffrgen.pretraining import PretrainOptions
from diffrgen.retrieval import RetrieverOptions
from diffrgen.training.options import ModelOptions, OptimiserOptions, Preset, TrainOptions


def preset_options(preset: Preset) -> TrainOptions:
    """Return the options of `preset`: `tiny` trains on two CPU cores in minutes, `iu` is for IU X-Ray
    on two CPU cores, `paper` is the paper's setting.
    """
    return {"tiny": _tiny, "iu": _iu, "paper": _paper}[preset]()


def _tiny() -> TrainOptions:
    return TrainOptions(
        preset="tiny",
        workers=1,
        output=Path("runs/tiny"),
        image=ImageOptions(size=112, resize=120, rotation=5.0),
        text=TextOptions(max_tokens=100),
        phantom=PhantomOptions(),
        retriever=RetrieverOptions(epochs=8, batch_size=32, learning_rate=1e-3, embedding_width=128),
        model=ModelOptions(
            encoder="tiny", decoder="tiny", warm_start=True, width=128, heads=4, dropout=0.0, prior=True
        ),
        optimiser=OptimiserOptions(learning_rate=1.2e-3, warmup=0.05, epochs=9, batch_size=8),
        generation=GenerationOptions(batch_size=32),
    )


def _iu() -> TrainOptions:
    """R2Gen's protocol (cleaning, 60 tokens, words seen at least 3 times), both views, an ImageNet encoder that is trained on
    the findings first and then frozen."""
    return TrainOptions(
        preset="iu",
        output=Path("runs/iu"),
        freeze="encoder",
        calibrate_prompts=True,
        # Pixels from -1 to 1, as EfficientNet-Lite was trained with.
        image=ImageOptions(size=224, resize=240, rotation=5.0, mean=0.5, std=0.5),
        text=TextOptions(rules="iu", max_tokens=60, min_frequency=3),
        retriever=RetrieverOptions(epochs=10, batch_size=64, learning_rate=1e-3, embedding_width=128, max_tokens=60),
        pretrain=PretrainOptions(epochs=6),
        model=ModelOptions(
            encoder="efficientnet-lite0",
            decoder="tiny",
            width=256,
            heads=4,
            dropout=0.1,
            finding_weight=3.0,
            learn_marks=False,
        ),
        optimiser=OptimiserOptions(learning_rate=8e-4, warmup=0.05, epochs=12, batch_size=8),
        # Beam search prefers normal reports, and greedy reports omit half of the prompted findings: docs/iu-xray.md.
        generation=GenerationOptions(
            beams=1, min_tokens=30, guidance=2.0, candidates=16, agreement=1.0, temperature=0.7, batch_size=32
        ),
        validation_studies=295,
    )


def _paper() -> TrainOptions:
    return TrainOptions(
        preset="paper",
        workers=4,
        output=Path("runs/paper"),
        # As on IU X-Ray, where the most probable state of a finding is almost never "positive": docs/iu-xray.md.
        calibrate_prompts=True,
        image=ImageOptions(size=224, resize=256, rotation=5.0),
        retriever=RetrieverOptions(epochs=10, batch_size=64, learning_rate=1e-4, embedding_width=512, text_width=512),
        model=ModelOptions(prior=True, learn_marks=False),
    )

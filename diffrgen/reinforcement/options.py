"""The options of `python -m diffrgen.reinforce`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Literal, get_args

import tyro
from annotated_types import Gt, Lt

from diffrgen.errors import DataError
from diffrgen.pipeline.options import ImageCacheOptions, LabelerOptions
from diffrgen.ranges import Count, CountOrZero, Positive, PositiveOrZero, Seed, check_fields

RewardName = Literal["states", "change", "temporal", "bleu_4", "rouge_l", "cider"]
Method = Literal["grpo", "scst"]
Keep = Literal["reward", "micro_f1", "last"]
# Defaults of each method.
REWARDS: Mapping[Method, tuple[str, ...]] = MappingProxyType({"grpo": ("states=0.5", "bleu_4=0.2"), "scst": ("cider=1",)})
ITERATIONS: Mapping[Method, int] = MappingProxyType({"grpo": 3, "scst": 1})
KL_WEIGHTS: Mapping[Method, float] = MappingProxyType({"grpo": 0.04, "scst": 0.0})


@dataclass(frozen=True)
class ReinforceOptions:
    """Fine-tune the decoder of a run on scores of the reports that it samples, and write a new run.

    The initial run is not modified, and all parts except the decoder are frozen. After each epoch the validation split
    is scored with its images and with those of other studies: an increase in both does not come from the image.
    """

    run: tyro.conf.Positional[str]
    """Run folder of diffrgen.train, or the hub name owner/name[@revision] of a shared run."""
    output: Path
    """Folder for the new run."""
    method: Method = "grpo"
    """`grpo`: compare the sampled reports of a study with each other (group-relative policy optimisation); `scst`: with
    the greedy report (self-critical sequence training)."""
    rewards: tuple[str, ...] = ()
    """NAME=WEIGHT of each reward: states, change (only for the phantom), temporal, bleu_4, rouge_l, cider. Default:
    states=0.5 bleu_4=0.2 for grpo, cider=1 for scst."""
    group: Count = 4
    """Reports sampled per study; at least 2 for grpo."""
    kl: PositiveOrZero | None = None
    """Weight of the divergence (KL) from the initial weights; default: 0.04 for grpo, 0 for scst."""
    clip: Annotated[float, Gt(0), Lt(1)] = 0.2
    """Clipping range of the ratio between a token's current and sampling probability."""
    iterations: Count | None = None
    """Steps on each batch of samples; default: 3 for grpo; always 1 for scst."""
    learning_rate: Positive = 1e-5
    """Peak learning rate of AdamW, with a cosine schedule to 0."""
    clip_norm: Positive = 1.0
    """Maximum gradient norm."""
    epochs: Count = 1
    """Epochs over the training split."""
    batch_size: Count = 8
    """Studies per batch of samples."""
    max_steps: Count | None = None
    """Stop after this many batches of samples; the schedule still covers all epochs."""
    checkpoint_every: Count | None = None
    """Batches between checkpoints within an epoch; default: ten minutes. A checkpoint is always written at the end of
    an epoch."""
    resume: bool = False
    """Continue from the newest complete checkpoint of --output; in a folder without a run, start a new run."""
    keep: Keep = "reward"
    """Weights that the new run keeps: those with the best weighted `reward` on the validation split, with the best
    `micro_f1` of its findings, or the `last` ones."""
    validation_studies: Count = 256
    """Validation studies for which reports are generated before the first step and after each epoch."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Mixed precision of the decoder's log-probabilities."""
    fused_kernels: bool = True
    """Use the fused operator; --no-fused-kernels uses the PyTorch reference."""
    seed: Seed = 0
    """Seed of the order of studies and of sampling."""
    workers: CountOrZero = 0
    """Processes that load images."""
    decoded: tyro.conf.OmitArgPrefixes[ImageCacheOptions] = field(default_factory=ImageCacheOptions)
    labeler: tyro.conf.OmitArgPrefixes[LabelerOptions] = field(default_factory=LabelerOptions)

    def __post_init__(self) -> None:
        check_fields(self, "--")
        self.weights()
        if self.method == "grpo" and self.group < 2:
            raise DataError(f"--group: expected at least 2 for grpo, which compares the reports of a study, got {self.group}")
        if self.method == "scst" and self.iterations not in (None, 1):
            raise DataError(f"--iterations: expected 1 for scst, got {self.iterations}")
        if Path(self.run).resolve() == self.output.resolve():
            raise DataError(f"--output {self.output}: is also the initial run; choose another --output")

    def weights(self) -> dict[str, float]:
        """Return the weight of each reward by name; DataError for what is none, twice the same, or no weight above 0."""
        names, weights = get_args(RewardName), dict[str, float]()
        for text in self.rewards or REWARDS[self.method]:
            name, _, value = text.partition("=")
            if name not in names:
                raise DataError(f"--rewards: expected NAME=WEIGHT with a name out of {', '.join(names)}, got {text!r}")
            if name in weights:
                raise DataError(f"--rewards: expected each reward once, got {name!r} twice")
            weights[name] = _weight(text, value)
        if not any(weights.values()):
            raise DataError(f"--rewards: expected a weight above 0, got {' '.join(self.rewards)}")
        return weights

    @property
    def kl_weight(self) -> float:
        """The weight of the divergence from the start."""
        return KL_WEIGHTS[self.method] if self.kl is None else self.kl

    @property
    def steps_a_batch(self) -> int:
        """Steps on each batch of samples."""
        return ITERATIONS[self.method] if self.iterations is None else self.iterations


def _weight(text: str, value: str) -> float:
    try:
        weight = float(value)
    except ValueError:
        weight = -1.0
    if not 0 <= weight < float("inf"):
        raise DataError(f"--rewards: expected a weight of at least 0, such as states=0.5, got {text!r}")
    return weight

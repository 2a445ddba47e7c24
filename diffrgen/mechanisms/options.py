"""The options of `python -m diffrgen.mechanisms`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro
from annotated_types import Ge

from diffrgen.pipeline.options import LabelerOptions
from diffrgen.ranges import check_fields
from diffrgen.records.study import Split


@dataclass(frozen=True)
class MechanismOptions:
    """Measure which inputs a trained network uses: replace one input at a time by that of another study, and measure the
    loss.

    An input whose replacement costs nothing is not used. Losses are those of the reference report after the prompt of
    the true states, in nats per token, and of the states of the findings, in nats per finding.
    """

    run: Path
    """Run folder of diffrgen.train, or the hub name owner/name[@revision] of a shared run."""
    split: Split = "test"
    """Split to measure on."""
    data: str | None = None
    """`phantom` or an annotation.json; default: the data of the training."""
    images: Path | None = None
    """Folder of the images of --data."""
    batch_size: Annotated[int, Ge(2)] = 32
    """Studies per batch, at least 2; each receives the inputs of the study half a batch away."""
    output: Path | None = None
    """New JSON file for all results."""
    labeler: tyro.conf.OmitArgPrefixes[LabelerOptions] = field(default_factory=LabelerOptions)

    def __post_init__(self) -> None:
        check_fields(self, "--")

"""Every option of `python -m diffrgen.experiments`, and the size of its trainings."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import tyro
from annotated_types import Ge

from diffrgen.errors import DataError
from diffrgen.experiments.job import Scoring
from diffrgen.experiments.variants import STUDIES, Row, Study, StudyName
from diffrgen.phantom import PhantomOptions
from diffrgen.pipeline.options import PHANTOM, DataOptions, GenerationOptions, ImageCacheOptions, ImageOptions
from diffrgen.ranges import Count, check_fields
from diffrgen.records import Split
from diffrgen.text.protocol import Protocol
from diffrgen.training.options import Preset, TrainOptions
from diffrgen.training.presets import preset_options

# Maximum parallel trainings; each of the preset `tiny` takes about 1 GiB.
MOST_PROCESSES = 8


@dataclass(frozen=True)
class ExperimentOptions:
    """Train the variants of a study over seeds, compare them with the full network, write tables and figures.

    Finished trainings are reused and interrupted ones continued; studies with the same output folder share their runs.
    """

    study: StudyName
    """Study to run. table2: modules removed; table3: metrics of Eq. 1; table_a: the routing module; figure_a: number of
    layers; ours: choices that the paper leaves open."""
    seeds: Count | None = None
    """Number of trainings per variant, with seeds 0, 1, ...; default: 5, or 2 with --quick."""
    preset: Preset | None = None
    """Train networks of this preset of diffrgen.train, at its full size; default: small trainings that suit the phantom
    (docs/experiments.md)."""
    quick: bool = False
    """Very small trainings, minutes in total: checks that everything works, too small to compare variants."""
    output: Path | None = None
    """Folder for runs, tables and figures; default: runs/experiments, or runs/experiments-quick with --quick."""
    variants: tuple[str, ...] = ()
    """Names of the variants to train in addition to the full network; default: all of the study."""
    processes: Count | None = None
    """Trainings in parallel; default: one per core, at most eight, or one if there is a GPU. Each has its share of the
    cores as threads, or OMP_NUM_THREADS if set."""
    epochs: Count | None = None
    """Epochs over the training split; default: those of the preset, or 3 without one."""
    studies: Annotated[int, Ge(3)] | None = None
    """Number of phantom studies; default: 6000, 250 with --quick, or the number of the preset."""
    split: Split = "test"
    """Split on which the trained networks are scored: val for choosing among them, test for a final table."""
    protocol: Protocol = "promptmrg"
    """Preprocessing protocol of the language scores, as in diffrgen.evaluate."""
    keep_weights: bool = False
    """Keep the folder of each finished training, including the weights."""
    data: tyro.conf.OmitArgPrefixes[DataOptions] = field(default_factory=DataOptions)
    decoded: tyro.conf.OmitArgPrefixes[ImageCacheOptions] = field(default_factory=ImageCacheOptions)

    def __post_init__(self) -> None:
        check_fields(self, "--")
        if self.studies is not None and self.data.data != PHANTOM:
            raise DataError(f"--studies is the size of the phantom, got it with --data {self.data.data}; leave it out")
        if self.quick and self.preset is not None:
            raise DataError(f"needed either --quick or --preset, got both (--preset {self.preset})")
        known = [row.variant.name for row in STUDIES[self.study].rows[1:]]
        unknown = [name for name in self.variants if name not in known]
        if unknown:
            raise DataError(f"--variants needs names out of {', '.join(known)} for {self.study}, got {unknown[0]}")

    @property
    def folder(self) -> Path:
        """The output folder."""
        return self.output or Path("runs/experiments-quick" if self.quick else "runs/experiments")

    @property
    def scoring(self) -> Scoring:
        """How the trained networks are scored."""
        return Scoring(self.split, self.protocol)

    @property
    def trainings(self) -> int:
        """Trainings of each variant."""
        return self.seeds or (2 if self.quick else 5)

    @property
    def chosen(self) -> Study:
        """The study with the variants that were asked for, the full network first."""
        study = STUDIES[self.study]
        return replace(study, rows=tuple(row for row in study.rows if self._is_wanted(row, study)))

    def _is_wanted(self, row: Row, study: Study) -> bool:
        return not self.variants or row is study.rows[0] or row.variant.name in self.variants

    @property
    def side_by_side(self) -> int:
        """Trainings at a time."""
        if self.processes is not None:
            return self.processes
        import torch

        return 1 if torch.cuda.is_available() else min(os.cpu_count() or 1, MOST_PROCESSES)

    def training(self) -> TrainOptions:
        """Return the options of the full network with seed 0; its output folder is not used."""
        size = _size(quick=self.quick) if self.preset is None else preset_options(self.preset)
        return replace(
            size,
            data=self.data,
            decoded=self.decoded,
            optimiser=replace(size.optimiser, epochs=self.epochs or size.optimiser.epochs),
            phantom=replace(size.phantom, studies=self.studies or size.phantom.studies),
        )


def _size(*, quick: bool) -> TrainOptions:
    """Return the size of a training: eighty take hours on two cores, or with `quick` minutes.

    It is the preset `tiny` with a smaller decoder, on a phantom that is easier than the default: a decoder that starts
    from random weights needs most of its steps to learn wordings, and in eighty short trainings it would not get beyond
    them. So reports use the first of the wordings, and findings show twice as strong.
    """
    tiny = preset_options("tiny")
    easy = PhantomOptions(studies=6000, size=128, follow_ups=0.5, contrast=2.0, variety=0.15)
    size = replace(
        tiny,
        workers=0,
        phantom=easy,
        retriever=replace(tiny.retriever, epochs=4),
        model=replace(tiny.model, decoder="nano"),
        optimiser=replace(tiny.optimiser, epochs=3),
        generation=GenerationOptions(beams=1, batch_size=32),
        validation_studies=128,
    )
    if not quick:
        return size
    return replace(
        size,
        image=ImageOptions(size=64, resize=68, rotation=5.0),
        phantom=replace(easy, studies=250, size=64),
        retriever=replace(size.retriever, epochs=2, neighbours=8),
        validation_studies=8,
    )

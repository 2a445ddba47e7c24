"""Parts shared by all runs, made once: tokenizer, retriever, index, the neighbours and prior study of every study."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import torch
from accelerate import PartialState

from diffrgen.errors import DataError
from diffrgen.experiments.job import Job
from diffrgen.pipeline.data_digest import FILE as DIGESTS
from diffrgen.pipeline.references import find_references
from diffrgen.pipeline.run_folder import RunFolder
from diffrgen.pipeline.settings import load_json, save_json
from diffrgen.records import SPLITS, Split
from diffrgen.staging import staged
from diffrgen.training.artifacts import reading_features
from diffrgen.training.assembly import TrainingParts, assemble
from diffrgen.training.options import TrainOptions
from diffrgen.training.run_lock import made_folder
from diffrgen.training.setup import set_up

# Written last: marks the folder as complete.
COMPLETE = "shared.json"


def make_shared(options: TrainOptions, folder: Path, *, split: Split = "test") -> int:
    """Make in `folder` what runs with `options` share, unless it is there; return the steps of a training.

    The retriever is fitted with the seed of `options`, whatever that of a run. DataError if the folder was made with
    other options, and where the data lack the `split` that trained networks are scored on.
    """
    options = replace(options, output=Path(folder.name))
    complete = folder / COMPLETE
    if complete.exists() and load_json(TrainOptions, complete) != options:
        raise DataError(f"{folder}: was made with other options than those asked for; choose another --output")
    run, state = RunFolder(folder), PartialState()
    with made_folder(folder):
        parts = assemble(set_up(options, run, state, needed=[name for name in SPLITS if name in {"train", "val", split}]))
    if not complete.exists():
        _find_references_of(split, run, parts, state.device, features=options.freeze == "encoder")
        save_json(options, complete)
    batch_size = min(options.optimiser.batch_size, len(parts.train))
    return options.optimiser.epochs * (len(parts.train) // batch_size // options.optimiser.accumulate)


def _find_references_of(
    split: Split, run: RunFolder, parts: TrainingParts, device: torch.device, *, features: bool
) -> None:
    """Retrieve for the studies of `split`; features: whether the images are read as those of a frozen encoder."""
    source, retriever = parts.source, run.retriever().to(device)
    find_references(
        reading_features(retriever) if features else retriever,
        run.index(),
        source,
        source.splits[split],
        split=split,
        settings=parts.settings,
        prior=parts.model.config.prior,
        context=parts.model.config.context,
    )


def open_job_folder(job: Job, folder: Path, shared: Path) -> None:
    """Make the folder that `job` is trained in, with copies of what is shared; one of an interrupted training stays.

    Raises DataError if that training has other options.
    """
    if folder.exists():
        if load_json(Job, Job.path(folder)) != job:
            raise DataError(f"{folder}: holds a training with other options than those asked for; remove it")
        return
    full = load_json(TrainOptions, shared / COMPLETE)
    # The digests cover the sections that a network reads: a variant with other sections computes its own.
    notes = () if job.options.model.context == full.model.context else (DIGESTS,)
    with staged(folder) as stage:
        shutil.copytree(shared, stage, dirs_exist_ok=True, ignore=shutil.ignore_patterns(COMPLETE, ".*", *notes))
        save_json(job, Job.path(stage))
        save_json(job.options, stage / "train.json")

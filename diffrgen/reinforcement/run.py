"""One run of `diffrgen.reinforce`, from its options to the new run folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import cast

from accelerate import Accelerator
from accelerate.utils import set_seed

from diffrgen.errors import DataError
from diffrgen.evaluation.split import SplitChoice, load_split
from diffrgen.model import DiffRGenConfig
from diffrgen.pipeline.data_summary import DataSummary
from diffrgen.pipeline.options import PHANTOM
from diffrgen.pipeline.run_folder import RunFolder
from diffrgen.pipeline.settings import load_json, save_json
from diffrgen.pipeline.source import StudySource
from diffrgen.reinforcement.lineage import RECORD, Lineage, take_start
from diffrgen.reinforcement.options import ReinforceOptions
from diffrgen.reinforcement.rewards import Rewards
from diffrgen.reinforcement.trainer import NumberedStudies, PolicyTrainer, train_options
from diffrgen.staging import partial_path, remove
from diffrgen.training.accelerator import make_accelerator
from diffrgen.training.assembly import TrainingParts
from diffrgen.training.full_disk import explained
from diffrgen.training.initial_record import NETWORK
from diffrgen.training.interruption import StopRequest
from diffrgen.training.log_lines import read_log
from diffrgen.training.options import REINFORCED
from diffrgen.training.resume import option_differences, option_flag
from diffrgen.training.run_lock import is_vacant, locked, no_run_if_refused
from diffrgen.weights import read_config

MAY_CHANGE = (
    *("run", "output", "resume", "max_steps", "checkpoint_every", "validation_studies", "workers", "fused_kernels"),
    *("decoded.image_cache", "decoded.image_cache_folder", "labeler.chexbert", "labeler.chexbert_vocabulary"),
)


def reinforce(options: ReinforceOptions) -> Lineage:
    """Fine-tune the decoder of a run and write the new run; return its origin and the change of its reward.

    Raises:
        DataError: unusable input, an output that holds something already, several processes, or a full disk.
        TrainingStopped: Ctrl-C or a termination signal; what was done is saved.
    """
    run = RunFolder(options.output)
    with explained(run):
        accelerator = make_accelerator(train_options(options))
        if accelerator.num_processes > 1:
            raise DataError(f"expected a single process, got {accelerator.num_processes}; start this command without torchrun")
        check_output(run.path, resume=options.resume)
        with StopRequest() as stop:
            with stop.immediate("stopped before the first batch; nothing was trained"):
                begun = (run.path / RECORD).is_file()
                home = run if begun else RunFolder.open(options.run)
                source = _source(options, home)
                _check_rewards(options, home)
            with _owned(options, run):
                if not begun:
                    take_start(options, home, home.model(fused_kernels=options.fused_kernels), run.path)
                trainer = _trainer(options, run, source, accelerator, stop)
                summary = trainer.fit()
                return _finished(run.path, summary.steps)


def _source(options: ReinforceOptions, home: RunFolder) -> StudySource:
    """Return the data of the run; DataError if the split train or val is empty."""
    settings, config = home.settings(), cast("DiffRGenConfig", read_config(DiffRGenConfig, home.path))
    choice = SplitChoice("train", None, None, settings.data.skip_broken, options.labeler, options.decoded)
    source, _ = load_split(home, settings, config, choice)
    if not source.splits.val:
        raise DataError(f"{source.splits.source}: needed studies in the split 'val', got none")
    return source


def _check_rewards(options: ReinforceOptions, home: RunFolder) -> None:
    """Raise DataError for a reward that the data of the run have no truth for."""
    data = home.settings().data.data
    if "change" in options.weights() and data != PHANTOM:
        raise DataError(
            f"--rewards: expected no reward `change`, whose truth only the phantom has, for a run on {Path(data).name}; "
            "`temporal` rewards the words of change on any data"
        )


def _trainer(
    options: ReinforceOptions, run: RunFolder, source: StudySource, accelerator: Accelerator, stop: StopRequest
) -> PolicyTrainer:
    set_seed(options.seed)
    settings, device = run.settings(), accelerator.device
    model = run.model(fused_kernels=options.fused_kernels)
    start = RunFolder(run.path / NETWORK).model(fused_kernels=options.fused_kernels)
    # The weights of a run that is resumed come from its checkpoint; if there is none yet, from the start.
    model.load_state_dict(start.state_dict())
    start.image_encoder = model.image_encoder
    train, val = (
        run.dataset(model.config, settings, source, source.splits[split], key=split, device=device)
        for split in ("train", "val")
    )
    numbered = NumberedStudies(
        train.studies, train.neighbours, train.settings, priors=train.priors, contexts=train.contexts, seed=options.seed
    )
    names, training = list(options.weights()), source.splits.train
    return PolicyTrainer(
        options,
        run,
        TrainingParts(settings, DataSummary.of(settings.data, source), model, numbered, val, source),
        accelerator,
        start=start,
        rewards=Rewards(names, numbered, source.labeler, training),
        validation_rewards=Rewards(names, val, source.labeler, training),
        stop=stop,
    )


def _finished(path: Path, batches: int) -> Lineage:
    """Add the change of the reward to the record of the run's origin."""
    record = load_json(Lineage, path / RECORD)
    lines = [line for line in read_log(path / "metrics.jsonl") if line.phase == "val"]
    kept = lines[-1] if record.keep == "last" else max(lines, key=lambda line: line.scalars[record.keep])
    record = replace(record, batches=batches, reward=(lines[0].scalars["reward"], kept.scalars["reward"]))
    save_json(record, path / RECORD)
    return record


@contextmanager
def _owned(options: ReinforceOptions, run: RunFolder) -> Iterator[None]:
    """Make the run folder, hold its lock within the block, and keep the options for `--resume`."""
    with locked(run.path):
        # Again, under the lock: another process may have created a run in the meantime.
        check_output(run.path, resume=options.resume)
        stored = run.path / REINFORCED
        if stored.is_file():
            _check_resumable(load_json(ReinforceOptions, stored), options)
            # Partial files of a process that ended while it replaced files of this folder.
            remove(partial_path(run.path))
        with no_run_if_refused(run.path, REINFORCED):
            save_json(replace(options, resume=False), stored)
            yield


def check_output(path: Path, *, resume: bool) -> None:
    """Raise DataError if a run cannot start at `path`, or go on there; resuming starts one if there is none."""
    if (path / REINFORCED).is_file():
        if not resume:
            raise DataError(f"{path}: holds a run of diffrgen.reinforce; pass --resume to continue, or another --output")
    elif not is_vacant(path):
        raise DataError(f"{path}: needed a new or empty folder, got one that holds something; choose another --output")


def _check_resumable(stored: ReinforceOptions, asked: ReinforceOptions) -> None:
    found = [
        f"{option_flag(name)} (was {before}, got {now})"
        for name, before, now in option_differences(stored, asked)
        if name not in MAY_CHANGE
    ]
    if found:
        raise DataError(f"{asked.output}: options that change the training cannot be resumed: {', '.join(found)}")

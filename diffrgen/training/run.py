"""One training run from options to scores."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

from accelerate import Accelerator, PartialState

from diffrgen.errors import DataError
from diffrgen.evaluation.options import EvaluateOptions
from diffrgen.evaluation.result import Evaluation
from diffrgen.evaluation.run import evaluate
from diffrgen.pipeline.options import PHANTOM
from diffrgen.pipeline.run_folder import RunFolder
from diffrgen.pipeline.settings import load_json, save_json
from diffrgen.staging import partial_path, remove
from diffrgen.training.accelerator import make_accelerator
from diffrgen.training.assembly import assemble
from diffrgen.training.curves import draw_curves
from diffrgen.training.full_disk import explained
from diffrgen.training.interruption import StopRequest, TrainingStopped
from diffrgen.training.options import REINFORCED, TrainOptions
from diffrgen.training.resume import check_resumable
from diffrgen.training.run_lock import LOCK, is_vacant, locked, no_run_if_refused
from diffrgen.training.setup import set_up
from diffrgen.training.summary import TrainingSummary
from diffrgen.training.trainer import Trainer

OPTIONS = "train.json"


def train(options: TrainOptions) -> tuple[TrainingSummary, Evaluation | None]:
    """Fit the retriever where it is missing, train, and evaluate the best weights on the test split.

    Returns how training went and the scores; None if the data have no test split or another process evaluates.
    Raises DataError for unusable input, for an output folder that holds a run already unless it is to resume or to
    overwrite, and for a full disk; TrainingStopped after Ctrl-C or a termination signal.
    """
    run = RunFolder(options.output)
    with explained(run):
        accelerator = make_accelerator(options)
        summary, test_studies = fit(options, run, accelerator)
        if not accelerator.is_main_process or not test_studies:
            return summary, None
        return summary, evaluate(
            EvaluateOptions(
                run.path,
                generation=options.generation,
                shuffled_images=options.data.data == PHANTOM,
                fused_kernels=options.fused_kernels,
                workers=options.workers,
                decoded=options.decoded,
            )
        )


def fit(options: TrainOptions, run: RunFolder, accelerator: Accelerator) -> tuple[TrainingSummary, int]:
    """Do all of `train` but the evaluation; return how training went and the number of test studies."""
    with _owned(options, run) if accelerator.is_main_process else nullcontext():
        return _fit(options, run, accelerator)


def _fit(options: TrainOptions, run: RunFolder, accelerator: Accelerator) -> tuple[TrainingSummary, int]:
    visible = accelerator.is_main_process
    accelerator.wait_for_everyone()
    try:
        with StopRequest() as stop:
            with stop.immediate(_stopped_before_training(run)):
                parts = assemble(set_up(options, run, PartialState(), progress=visible, stop=stop))
                if visible:
                    save_json(parts.settings, run.settings_path)
                    save_json(parts.data, run.path / "data.json")
            summary = Trainer(options, run, parts, accelerator, stop).fit()
    except TrainingStopped:
        # The trainer has written a checkpoint; the curves show the training so far.
        if visible:
            draw_curves(run.path)
        raise
    if visible:
        draw_curves(run.path)
        save_json(summary, run.path / "training.json")
    accelerator.wait_for_everyone()
    return summary, parts.data.splits["test"].studies


def _stopped_before_training(run: RunFolder) -> str:
    return (
        "stopped while the run was prepared; finished parts are kept. Continue with: "
        f"python -m diffrgen.train --resume --output {run.path}"
    )


@contextmanager
def _owned(options: TrainOptions, run: RunFolder) -> Iterator[None]:
    """Open the run folder, hold its lock within the block, and keep the options for `--resume`.

    Raises DataError if another process trains in the folder, and where a run is resumed with options that it may not
    be given.
    """
    check_run_folder(run.path, resume=options.resume, overwrite=options.overwrite)
    with locked(run.path):
        # Again, under the lock: another process may have created a run in the meantime.
        check_run_folder(run.path, resume=options.resume, overwrite=options.overwrite)
        stored = run.path / OPTIONS
        if options.resume and stored.is_file():
            check_resumable(load_json(TrainOptions, stored), options)
            # Partial files of a process that ended while it replaced files of this folder.
            remove(partial_path(run.path))
        elif options.overwrite:
            for path in run.path.iterdir():
                if path.name != LOCK:
                    remove(path)
        with no_run_if_refused(run.path, OPTIONS):
            save_json(replace(options, resume=False, overwrite=False), stored)
            yield


def check_run_folder(path: Path, *, resume: bool, overwrite: bool) -> None:
    """Raise DataError if a run cannot start at `path`, or go on there: what is there is kept unless it is a run that
    may be overwritten. Resuming starts a run if there is none, so that a job can be given the same command again.
    """
    if resume and overwrite:
        raise DataError(f"{path}: needed either --resume or --overwrite, got both")
    if (path / REINFORCED).is_file():
        raise DataError(f"{path}: holds a run of diffrgen.reinforce, which this command would replace; choose another --output")
    if (path / OPTIONS).is_file():
        if not (resume or overwrite):
            advice = "pass --resume to continue, --overwrite to replace it, or another --output"
            raise DataError(f"{path}: already holds a run; {advice}")
    elif path.is_file():
        raise DataError(f"{path}: needed a folder for the run, got a file; choose another --output")
    elif not is_vacant(path):
        raise DataError(f"{path}: holds files other than a run; choose another --output")

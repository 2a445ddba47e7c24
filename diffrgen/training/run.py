"""One training run from options to scores."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from accelerate import Accelerator, PartialState

from diffrgen.errors import DataError
from diffrgen.evaluation.run import EvaluateOptions, Evaluation, evaluate
from diffrgen.pipeline.run_folder import RunFolder
from diffrgen.pipeline.settings import save_json
from diffrgen.pipeline.source import PHANTOM
from diffrgen.staging import is_partial, partial_path, remove
from diffrgen.training.curves import draw_curves
from diffrgen.training.full_disk import explained
from diffrgen.training.interruption import StopRequest, TrainingStopped
from diffrgen.training.options import TrainOptions
from diffrgen.training.prepare import prepare
from diffrgen.training.summary import TrainingSummary
from diffrgen.training.trainer import Trainer, make_accelerator


def train(options: TrainOptions) -> tuple[TrainingSummary, Evaluation | None]:
    """Fit the retriever where it is missing, train, and evaluate the best weights on the test split.

    Returns how training went and the scores; None where the data have no test split or another process evaluates.
    Raises DataError for unusable input, for an output folder that holds a run already unless told to resume or to
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
    if accelerator.is_main_process:
        open_run_folder(run.path, resume=options.resume, overwrite=options.overwrite)
        save_json(replace(options, resume=False, overwrite=False), run.path / "train.json")
    visible = accelerator.is_main_process
    accelerator.wait_for_everyone()
    try:
        with StopRequest() as stop:
            with stop.immediate(_stopped_before_training(run)):
                prepared = prepare(options, run, PartialState(), progress=visible, stop=stop)
                if visible:
                    save_json(prepared.settings, run.settings_path)
                    save_json(prepared.data, run.path / "data.json")
            summary = Trainer(options, run, prepared, accelerator, stop).fit()
    except TrainingStopped:
        # It has saved where it stands; the curves show it.
        if visible:
            draw_curves(run.path)
        raise
    if visible:
        draw_curves(run.path)
        save_json(summary, run.path / "training.json")
    accelerator.wait_for_everyone()
    return summary, prepared.data.splits["test"].studies


def _stopped_before_training(run: RunFolder) -> str:
    return (
        "stopped while the run was prepared; what was finished is kept. Go on with: "
        f"python -m diffrgen.train --resume --output {run.path}"
    )


def open_run_folder(path: Path, *, resume: bool, overwrite: bool) -> None:
    """Make the run folder; DataError where it holds something and neither resuming nor overwriting was asked for.

    Overwriting removes a folder only if it holds a run.
    """
    is_run = (path / "train.json").is_file()
    if resume:
        if not is_run:
            raise DataError(f"{path}: needed the folder of a run to resume, got no train.json; start without --resume")
        # What a process left that ended while it replaced files of this folder.
        remove(partial_path(path))
        return
    if path.exists() and (not path.is_dir() or not all(map(is_partial, path.iterdir()))):
        if not (overwrite and is_run):
            what = "holds a run already" if is_run else "holds something else than a run"
            advice = "pass --resume to go on, --overwrite to start anew, or another --output"
            raise DataError(f"{path}: {what}; {advice if is_run else 'choose another --output'}")
        shutil.rmtree(path)
    path.mkdir(parents=True, exist_ok=True)

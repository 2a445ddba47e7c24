"""One run in a separate process: `python -m diffrgen.experiments.worker FOLDER`, started by the runner."""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from diffrgen.command import run_command
from diffrgen.evaluation.options import EvaluateOptions
from diffrgen.evaluation.result import Evaluation
from diffrgen.evaluation.run import evaluate
from diffrgen.experiments.job import Job
from diffrgen.experiments.record import RunRecord, as_rows
from diffrgen.experiments.routing import routing_statistics
from diffrgen.pipeline.run_folder import RunFolder
from diffrgen.pipeline.settings import load_json
from diffrgen.training.accelerator import make_accelerator
from diffrgen.training.full_disk import explained
from diffrgen.training.interruption import TrainingStopped
from diffrgen.training.run import fit
from diffrgen.training.summary import TrainingSummary


def main(arguments: list[str] | None = None) -> int:
    """Train and evaluate the job of the folder that is the one argument; return the exit status."""
    (folder,) = sys.argv[1:] if arguments is None else arguments
    job = load_json(Job, Job.path(Path(folder)))
    try:
        with _alone(Path(folder)):
            run_job(job, Path(folder))
    except TrainingStopped as stopped:
        print(stopped, file=sys.stderr)
        return stopped.status
    return 0


def run_job(job: Job, folder: Path) -> RunRecord:
    """Train `job` in `folder`, from its newest checkpoint where there is one, evaluate, and write its record."""
    options = replace(job.options, output=folder, resume=True)
    run = RunFolder(folder)
    with explained(run):
        summary, _ = fit(options, run, make_accelerator(options))
        # No intervals here: the table computes them over all runs of a study, from the stored per-study scores.
        evaluation = evaluate(
            EvaluateOptions(
                folder,
                split=job.scoring.split,
                protocol=job.scoring.protocol,
                baselines=False,
                resamples=0,
                generation=options.generation,
                decoded=options.decoded,
            )
        )
        record = make_record(job, summary, evaluation, parameters=run.model().num_parameters())
        record.save(job.record)
    return record


def make_record(job: Job, summary: TrainingSummary, evaluation: Evaluation, *, parameters: int) -> RunRecord:
    """Return what is kept of a run."""
    scores = evaluation.model
    numbers = dict(scores.per_study)
    if scores.statements is not None:
        numbers["statements"] = scores.statements.counts
    states = np.array([study.labels for study in evaluation.studies])
    return RunRecord(
        variant=job.variant,
        seed=job.options.seed,
        options=job.options,
        parameters=parameters,
        summary=summary,
        scores=scores.to_dict(),
        routing=routing_statistics([report.routing for report in evaluation.written], states),
        studies=tuple(study.id for study in evaluation.studies),
        per_study={name: as_rows(matrix) for name, matrix in numbers.items()},
        scoring=job.scoring,
    )


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Wait until no other process trains in `folder`; within the block, stop as on SIGTERM when the runner is gone."""
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        threading.Thread(target=_stop_with_runner, daemon=True).start()
        yield


def _stop_with_runner() -> None:
    """Wait for the end of standard input, whose other end the runner holds as long as it lives."""
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(run_command(main))

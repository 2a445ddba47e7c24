"""Runs the trainings of a study in parallel, each in a separate process, and continues after an interruption."""

from __future__ import annotations

import json
import os
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from subprocess import PIPE, STDOUT, Popen
from typing import IO

from tqdm import tqdm

from diffrgen.errors import DataError
from diffrgen.experiments.job import Job, Scoring
from diffrgen.experiments.record import RunRecord
from diffrgen.experiments.shared import open_job_folder
from diffrgen.experiments.variants import Study
from diffrgen.staging import discard
from diffrgen.training.options import TrainOptions

POLL_SECONDS = 0.5
LOG = "log.txt"


def jobs_of(
    study: Study, full: TrainOptions, *, seeds: int, output: Path, scoring: Scoring | None = None
) -> list[Job]:
    """Return a job for each variant and seed, all variants of a seed before the next seed."""
    jobs, scoring = [], scoring or Scoring()
    for seed in range(seeds):
        for row in study.rows:
            name = row.variant.name
            options = replace(row.variant.of(full), seed=seed, output=Path(f"{name}-{seed}"))
            record = (output / "runs" / name / f"seed-{seed}.json").resolve()
            jobs.append(Job(name, options, record, scoring))
    return jobs


def finished(job: Job) -> RunRecord | None:
    """Return the record of a job that has been done; DataError if it was done with other options."""
    if not job.record.exists():
        return None
    record = RunRecord.load(job.record)
    if (record.options, record.scoring) != (job.options, job.scoring):
        raise DataError(f"{job.record}: holds a run with other options than those asked for; choose another --output")
    return record


@dataclass
class Running:
    """A job's process and its folder."""

    job: Job
    folder: Path
    process: Popen[bytes]
    log: IO[bytes]

    def steps(self) -> int:
        """Return the number of finished steps, from the log of the training."""
        path = self.folder / "metrics.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.is_file() else []
        return max((json.loads(line)["step"] for line in lines if line.endswith("\n")), default=0)

    def close(self) -> None:
        """Wait for the end of the process and let go of its files."""
        self.process.wait()
        self.log.close()
        if self.process.stdin is not None:
            self.process.stdin.close()

    def last_words(self) -> str:
        """Return the end of what the process printed."""
        text = (self.folder / LOG).read_text(encoding="utf-8", errors="replace")
        return "\n".join(text.strip().splitlines()[-5:])


class Runner:
    """Trains jobs in folders below `output`, `processes` at a time; `steps` is the length of a training."""

    def __init__(self, output: Path, shared: Path, *, processes: int, steps: int, keep_weights: bool = False) -> None:
        self.output, self.shared, self.processes, self.steps = output, shared, processes, steps
        self.keep_weights = keep_weights

    def run(self, jobs: Sequence[Job], *, progress: bool = True) -> list[RunRecord]:
        """Train what is not finished; return the records in the order of `jobs`.

        Raises DataError with the last words of a training that fails; the others are stopped with a checkpoint then, as
        they are on Ctrl-C.
        """
        waiting = deque(job for job in jobs if finished(job) is None)
        done = len(jobs) - len(waiting)
        bar = tqdm(total=len(waiting) * self.steps, unit="step", disable=not progress, smoothing=0.1, mininterval=1.0)
        running: list[Running] = []
        completed = 0
        with bar, self._stopping(running):
            while waiting or running:
                while waiting and len(running) < self.processes:
                    running.append(self._start(waiting.popleft()))
                time.sleep(POLL_SECONDS)
                for each in [one for one in running if one.process.poll() is not None]:
                    running.remove(each)
                    self._end(each)
                    completed += 1
                bar.set_description_str(f"{done + completed} of {len(jobs)} runs", refresh=False)
                bar.update(completed * self.steps + sum(min(each.steps(), self.steps) for each in running) - bar.n)
        return [RunRecord.load(job.record) for job in jobs]

    def _start(self, job: Job) -> Running:
        folder = self.output / "work" / job.name
        open_job_folder(job, folder, self.shared)
        threads = max(1, (os.cpu_count() or 1) // self.processes)
        log = (folder / LOG).open("ab")
        process = Popen(
            [sys.executable, "-m", "diffrgen.experiments.worker", str(folder)],
            # The worker exits when this pipe closes, so it ends with this process.
            stdin=PIPE,
            stdout=log,
            stderr=STDOUT,
            env={"OMP_NUM_THREADS": str(threads), **os.environ, "TOKENIZERS_PARALLELISM": "false"},
        )
        return Running(job, folder, process, log)

    def _end(self, running: Running) -> None:
        running.close()
        if running.process.returncode or not running.job.record.exists():
            raise DataError(
                f"{running.folder}: the training ended with status {running.process.returncode}; "
                f"its last words ({LOG}):\n{running.last_words()}"
            )
        if not self.keep_weights:
            discard(running.folder)

    @contextmanager
    def _stopping(self, running: list[Running]) -> Iterator[None]:
        """When the block ends, stop every process that runs still, after its step and with a checkpoint."""
        try:
            yield
        finally:
            for each in running:
                each.process.terminate()
            for each in running:
                each.close()

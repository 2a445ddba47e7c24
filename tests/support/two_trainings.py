"""Trains, stops, resumes and validates in two processes: `python tests/support/two_trainings.py FOLDER`.

Writes FOLDER/unbroken, a run without a stop, FOLDER/stopped, one whose second process was told to stop twice and that
was then resumed, and validation-1.json and validation-2.json, the same validation in one process and in two.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import zlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from accelerate import PartialState
from tiny_training import arguments, start, write_studies
from two_processes import in_two_processes

from diffrgen.labels import FINDINGS
from diffrgen.pipeline.run_folder import RunFolder
from diffrgen.train import parse_options
from diffrgen.training import trainer
from diffrgen.training.assembly import assemble
from diffrgen.training.setup import set_up
from diffrgen.training.validation import validate

# In the middle of the first epoch, then at its end: before its validation.
STEPS, STOPS = 5, (3, 4)
OPTIONS = ("--optimiser.batch-size", "2", "--max-steps", str(STEPS), "--checkpoint-every", "2")


def train(data: Path, run: Path, stop_after: int, rank: int) -> int:
    """Train in one of two processes; the second one is told to stop in the step `stop_after`, if that is not 0."""
    trainer.LOG_EVERY = 1
    step = trainer.Trainer._step

    def told_to_stop(self, batch, temperature):
        if rank == 1 and self.progress.step == stop_after - 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, batch, temperature)

    trainer.Trainer._step = told_to_stop
    return start(data, run, *OPTIONS)


def states_from_words(reports: Sequence[str]) -> np.ndarray:
    """Stand in for a labeler: every report gets states of its own, whatever it says."""
    draws = [np.random.default_rng(zlib.crc32(report.encode())) for report in reports]
    return np.array([draw.integers(0, 2, len(FINDINGS)) for draw in draws]).reshape(-1, len(FINDINGS))


def measure(data: Path, run: Path, output: Path, _: int = 0) -> int:
    """Validate the initial network and write the result, in the first process."""
    options = parse_options(arguments(data, run))
    state = PartialState(cpu=True)
    parts = assemble(set_up(options, RunFolder(run), state, progress=False))
    found = validate(parts.model, parts.val, states_from_words, batch_size=2, studies=3, progress=False)
    if state.is_main_process:
        output.write_text(json.dumps({**found.scores, "positive": found.positive_probability.tolist()}))
    return 0


def main(folder: Path) -> None:
    """Do all of it; the parts in one process come last, for what has computed cannot be forked."""
    data = write_studies(folder / "data")
    assert in_two_processes(partial(train, data, folder / "unbroken", 0)) == [0, 0]
    for step in STOPS:
        assert in_two_processes(partial(train, data, folder / "stopped", step)) == [143, 143]
    assert in_two_processes(partial(train, data, folder / "stopped", 0)) == [0, 0]
    run = folder / "unbroken"
    assert in_two_processes(partial(measure, data, run, folder / "validation-2.json")) == [0, 0]
    # As many threads as each of the two had: sums in another order differ in the last bit.
    torch.set_num_threads(1)
    measure(data, run, folder / "validation-1.json")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

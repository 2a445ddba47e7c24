"""Kills a training with SIGKILL again and again: `python tests/support/kill_training.py --kills 100`.

Some kills come at a random moment, the others while a file or a folder is being written. After each kill every
checkpoint that has its final name must be whole and at most the steps since the last one may be lost; a training that
got to its end in spite of the kills must equal the unbroken one to the bit.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import random
import signal
import tempfile
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch

# Imported before the first process is forked, so that each start takes a second and not ten.
from tiny_training import EPOCH, differences, log_lines, start, write_studies

from diffrgen.staging import is_partial
from diffrgen.training import trainer
from diffrgen.training.checkpoints import find_fault, list_checkpoints, newest_complete

EVERY = 3
PATIENCE = 120.0
# Folders in which names are partial for a moment: checkpoints; weights, settings and tokenizer of the run; its index.
WATCHED = ("checkpoints", ".", "..")


def main() -> None:
    """Parse the command line, kill, print what happened; AssertionError where something was lost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="start no further kill after so long")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    # OpenMP's threads do not survive a fork: a training with more than one would wait for them for ever.
    torch.set_num_threads(1)
    draw = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        data = write_studies(root / "data")
        started = time.monotonic()
        assert wait_for(fork(data, root / "unbroken")) == 0
        duration = time.monotonic() - started
        kills = writing = lost = rounds = 0
        while kills < options.kills and time.monotonic() - started < 60 * options.minutes:
            run = root / f"round-{rounds}" / "run"
            run.parent.mkdir()
            while (moment := kill_once(data, run, draw, duration)) is not None:
                kills, writing = kills + 1, writing + moment
                duration *= 1.05
                lost = max(lost, check(run))
                print(f"\rkill {kills}, round {rounds + 1}", end="", flush=True)
                if kills >= options.kills:
                    assert wait_for(fork(data, run)) == 0
                    break
            # The machine may have been busy with other things when the unbroken training was timed.
            duration *= 0.8
            found = differences(root / "unbroken", run)
            assert not found, f"round {rounds + 1} differs from the unbroken training: {found}"
            rounds += 1
    print(
        f"\r{kills} kills, {writing} of them while something was being written; {rounds} trainings came to their end, "
        f"all equal to the unbroken one; at most {lost} steps lost at once"
    )


def fork(data: Path, run: Path) -> BaseProcess:
    """Start the training of `run`, or go on with it, in a process of its own."""
    process = multiprocessing.get_context("fork").Process(target=train_quietly, args=(data, run))
    process.start()
    return process


def train_quietly(data: Path, run: Path) -> None:
    """Train as the command does, with a log line for every step, and leave with its status."""
    trainer.LOG_EVERY = 1
    log = (run.parent / "output.txt").open("a")
    os.dup2(log.fileno(), 1)
    os.dup2(log.fileno(), 2)
    raise SystemExit(start(data, run, "--checkpoint-every", str(EVERY)))


def wait_for(process: BaseProcess) -> int | None:
    """Return the exit status of a process that has time enough to end by itself."""
    process.join(PATIENCE)
    assert not process.is_alive(), "training hangs"
    return process.exitcode


def kill_once(data: Path, run: Path, draw: random.Random, duration: float) -> bool | None:
    """Start the training and kill it; return whether it was writing, None where it had come to its end before."""
    process = fork(data, run)
    process.join(draw.uniform(0, duration))
    if draw.random() < 0.5:
        wait_until_it_writes(process, run)
        time.sleep(draw.uniform(0, 0.02))
    with contextlib.suppress(ProcessLookupError):
        os.kill(process.pid, signal.SIGKILL)
    status = wait_for(process)
    if status == 0:
        return None
    assert status == -signal.SIGKILL, (run.parent / "output.txt").read_text()
    return bool(partials(run))


def wait_until_it_writes(process: BaseProcess, run: Path) -> None:
    """Wait until a partial name appears, but not for ever: there may be nothing left to write."""
    end = time.monotonic() + 1.0
    while process.is_alive() and time.monotonic() < end and not partials(run):
        pass


def partials(run: Path) -> list[Path]:
    """The names of what is being written now."""
    return [path for name in WATCHED if (run / name).is_dir() for path in (run / name).iterdir() if is_partial(path)]


def check(run: Path) -> int:
    """Return how many steps the kill has cost; AssertionError where a checkpoint is broken or too many were lost."""
    checkpoints = run / "checkpoints"
    for path in list_checkpoints(checkpoints):
        assert find_fault(path) is None, f"{path}: {find_fault(path)}"
    newest = newest_complete(checkpoints)
    saved = 0 if newest is None else int(newest.name.split("-")[1])
    taken = max((line["step"] for line in log_lines(run)), default=0)
    assert taken - saved <= min(EVERY, EPOCH), f"{run}: {taken} steps were taken and {saved} are saved"
    return taken - saved


if __name__ == "__main__":
    main()

"""Stops a training with workers three times by a signal to its process group: `python tests/support/group_signals.py FOLDER`.

The signal comes while the retriever's worker starts, while a worker reads for the neighbours, and while one reads for the
first step. Prints the status of each and of the resumed training that is left alone.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

from tiny_training import start, write_studies
from torch.utils.data._utils import signal_handling

from diffrgen.pipeline.dataset import StudyDataset
from diffrgen.retrieval.neighbours import QueryImages


class Signal:
    """Sends SIGTERM to the process group once a function is done, the first time in whichever process that is."""

    def __init__(self, mark: Path, work: Callable) -> None:
        self.mark, self.work = mark, work

    def __call__(self, *arguments: object) -> object:
        done = self.work(*arguments)
        with contextlib.suppress(FileExistsError):
            self.mark.touch(exist_ok=False)
            os.killpg(0, signal.SIGTERM)
        return done


def main(folder: Path) -> None:
    """Stop, resume, and print the statuses."""
    data, run = write_studies(folder / "data"), folder / "run"
    # A worker has its own handlers then.
    starting = (signal_handling, "_set_worker_signal_handlers")
    looking_up, training = (QueryImages, "__getitem__"), (StudyDataset, "__getitem__")
    for number, (place, name) in enumerate((starting, looking_up, training)):
        send = Signal(folder / f"sent-{number}", getattr(place, name))
        with patch.object(place, name, lambda *arguments, send=send: send(*arguments)):
            print(start(data, run, "--workers", "1", "--max-steps", "3"), flush=True)
    print(start(data, run, "--max-steps", "3"))


if __name__ == "__main__":
    main(Path(sys.argv[1]))

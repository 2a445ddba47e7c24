"""Workers that read images never keep Python from exiting, though they leave signals to the main process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from warm_process import run_warm

HELD_LOADER = """
import atexit, time
atexit.register(time.sleep, 1)  # runs after the workers were ended
from diffrgen.pipeline import dataset

class Studies:
    def __len__(self):
        return 4
    def __getitem__(self, row):
        row = dataset.torch.tensor([row])
        return {"row": row, "labels": row, "pixel_values": row, "view_kinds": row}

loader = dataset.example_loader(Studies(), batch_size=2, workers=1, passes=True)
batches = iter(loader)
print(next(batches)["row"].flatten().tolist(), flush=True)
import builtins  # what lies there outlives every module
builtins.kept = (loader, batches)
"""


def test_python_exits_while_something_holds_a_loader():
    done = subprocess.run([sys.executable, "-c", HELD_LOADER], capture_output=True, text=True, timeout=90, check=False)
    assert (done.returncode, done.stdout) == (0, "[0, 1]\n"), done.stderr
    assert "Traceback" not in done.stderr, done.stderr


def test_a_signal_to_the_process_group_stops_training_in_words_wherever_a_worker_stands(tmp_path):
    command = [sys.executable, str(Path(__file__).parents[1] / "support" / "group_signals.py"), str(tmp_path)]
    done = run_warm(command, timeout=600, start_new_session=True)
    said = done.stdout + done.stderr
    assert [line for line in done.stdout.splitlines() if line.isdigit()] == ["143", "143", "143", "0"], said
    assert "Traceback" not in done.stderr, said
    assert "stopped: the retriever is fitted to step 1 of 1, which is saved" in done.stderr, said
    assert "stopped while the run was prepared; finished parts are kept" in done.stderr, said
    assert "stopped after step 1 of 3, which is saved" in done.stderr, said

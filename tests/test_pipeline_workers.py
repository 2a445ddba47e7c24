"""Workers that read images never keep Python from exiting, though they leave signals to the main process."""

from __future__ import annotations

import subprocess
import sys

HELD_LOADER = """
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

"""MIMIC-CXR's tables at scale: memory stays below 1 GB, no report is held, and every row is accounted for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from mimic_archive import write_large

# DIFFRGEN_FULL_SCALE=1 runs the real 377,110 rows, whose archive alone takes a minute to make.
FULL = os.environ.get("DIFFRGEN_FULL_SCALE") == "1"
IMAGES, STUDIES, PATIENTS = (377_110, 227_835, 64_588) if FULL else (40_000, 24_000, 7_000)

CODE = r"""
import re, sys, time
from pathlib import Path
from diffrgen.preparation import MimicCxrOptions, prepare_mimic_cxr
prepare_mimic_cxr(MimicCxrOptions(Path(sys.argv[1]), Path(sys.argv[2])))
# Not getrusage's ru_maxrss: a process starts with its parent's there, which is the whole test run's.
peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
print(time.process_time(), peak[1])
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the peak of memory is read from Linux's /proc")
def test_rows_of_mimic_cxr_are_prepared_in_bounded_time_and_memory(tmp_path: Path) -> None:
    write_large(tmp_path / "archive", images=IMAGES, studies=STUDIES, patients=PATIENTS)
    command = [sys.executable, "-c", CODE, str(tmp_path / "archive"), str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, check=True)
    # Seconds of the processor, not of the clock: a busy machine fails no test.
    seconds, kilobytes = map(float, done.stdout.split())

    summary = json.loads((tmp_path / "out" / "summary.json").read_text(encoding="utf-8"))
    print(f"{IMAGES:,} rows: {seconds:.1f} s of the processor, {kilobytes / 1024:.0f} MB")
    assert summary["read"] == {"images": IMAGES, "studies": STUDIES}
    assert sum(kept["entries"] for kept in summary["kept"].values()) == IMAGES
    assert sum(kept["patients"] for kept in summary["kept"].values()) == PATIENTS
    assert summary["dropped"] == {"studies": {}, "images": {}}
    with (tmp_path / "out" / "annotation.json").open(encoding="utf-8") as lines:
        # A record a line, three lines of brackets and the last one.
        assert sum(1 for _ in lines) == IMAGES + 4
    assert seconds < 120 * IMAGES / 377_110
    assert kilobytes < 1024**2

"""Reads uploaded DICOM files in a process that may crash or hang without the service."""

from __future__ import annotations

import json
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from diffrgen.errors import DataError

STARTS_WITHIN, READS_WITHIN = 60.0, 10.0
DAMAGED = "the DICOM file is damaged, or asks for too much memory or time"


class DicomReader:
    """A `dicom_process` that is started early and started anew when a file has ended it; for one caller at a time."""

    def __init__(self) -> None:
        self._process = _start()
        self._ready = False

    def to_png(self, file: Path, png: Path, *, max_pixels: int) -> None:
        """Write the picture of DICOM `file` as grey PNG; DataError where it has none or cannot be read."""
        task = {"file": str(file), "png": str(png), "max_pixels": max_pixels}
        try:
            if not self._ready:
                self._ready = bool(self._answer(STARTS_WITHIN))
            self._process.stdin.write(json.dumps(task).encode() + b"\n")
            self._process.stdin.flush()
            error = self._answer(READS_WITHIN)["error"]
        except (OSError, EOFError, TimeoutError):
            self._end()
            self._process, self._ready = _start(), False
            raise DataError(DAMAGED) from None
        if error is not None:
            raise DataError(error)

    def _end(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            pipe.close()

    def _answer(self, seconds: float) -> dict[str, Any]:
        """The next line; EOFError where the process has ended, TimeoutError where it says nothing for so long."""
        output, end, line = self._process.stdout, time.monotonic() + seconds, b""
        while not line.endswith(b"\n"):
            if not select.select([output], [], [], max(0.0, end - time.monotonic()))[0]:
                raise TimeoutError
            part = output.read1(4096)
            if not part:
                raise EOFError
            line += part
        return json.loads(line)


def _start() -> subprocess.Popen[bytes]:
    # What decoders print may quote the file.
    return subprocess.Popen(
        [sys.executable, "-m", "diffrgen.serving.dicom_process"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )

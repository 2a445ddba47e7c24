"""A process of its own that turns DICOM files into grey PNGs: `python -m diffrgen.serving.dicom_process`.

The decoders of compressed DICOM are native code that a hostile file can make crash, hang or ask for all memory. Here they
take only this process with them, and of the file nothing but its grey pixels reaches the service. Reads a line of JSON a
file, {"file", "png", "max_pixels"}, and writes one: {"error": null or why it cannot be read}.
"""

from __future__ import annotations

import contextlib
import json
import resource
import sys
from pathlib import Path

from diffrgen.errors import DataError
from diffrgen.images.dicom import read_dicom

# Above what the process holds at its start: a few copies of the largest image, as float64.
MOST_BYTES = 2 << 30


def main() -> None:
    """Answer line by line until standard input ends."""
    with contextlib.suppress(ImportError):  # without it `read_dicom` says what to install
        import pydicom.pixels.decoders  # noqa: F401

    pages = int(Path("/proc/self/statm").read_text().split()[0]) if sys.platform.startswith("linux") else 0
    limit = pages * resource.getpagesize() + MOST_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        task = json.loads(line)
        try:
            picture = read_dicom(Path(task["file"]), max_pixels=task["max_pixels"])
            picture.save(task["png"], compress_level=1)
            error = None
        except DataError as refused:
            error = str(refused)
        except MemoryError:
            error = "the DICOM file asks for too much memory"
        print(json.dumps({"error": error}), flush=True)


if __name__ == "__main__":
    main()

"""A process of its own that decodes uploads to grey pixels: `python -m diffrgen.serving.image_process`.

Decoders are native code that a hostile file can make crash, run for hours or ask for all memory. Here they take only
this process with them, and of the file nothing but its grey pixels, its view and digests of two tags reaches the service.
Takes a line of JSON a file, {"file", "sizes", "max_pixels", "seconds", "key"}, and answers one: {"error": null or why it is
refused, "shapes": [[width, height] an image], "patient", "study", "view", "text": see `Upload`}, then the pixels of these
images, a byte each. Without "sizes" it answers {"error", "tags"}.
"""

from __future__ import annotations

import contextlib
import ctypes
import hmac
import json
import os
import resource
import signal
import sys
from dataclasses import astuple
from pathlib import Path
from typing import Any

from PIL import Image

from diffrgen.errors import DataError
from diffrgen.images import probe_grey, read_grey, read_resized
from diffrgen.images.burned_text import SIDE, TextRegion, find_text
from diffrgen.images.dicom import read_dicom
from diffrgen.images.dicom_study import DicomStudy, dicom_study
from diffrgen.images.resized import resized

# Above what the process holds at its start: a few copies of the largest image, as float64.
MOST_BYTES = 2 << 30
PR_SET_PDEATHSIG = 1
NO_TAGS = DicomStudy("", "", "unknown")


def main() -> None:
    """Answer file by file until standard input ends."""
    _end_with_parent()
    with contextlib.suppress(ImportError):  # without it `read_dicom` names the package to install
        import pydicom.pixels.decoders  # noqa: F401
    _bound_memory()
    _answer({"ready": True})
    for line in sys.stdin:
        task = json.loads(line)
        # Counts processor time of all threads; the signal ends the process within a decoder too.
        signal.setitimer(signal.ITIMER_PROF, task["seconds"])
        try:
            answer, images = taken(task)
        except DataError as refused:
            answer, images = {"error": str(refused)}, []
        except MemoryError:
            answer, images = {"error": "the image asks for too much memory"}, []
        signal.setitimer(signal.ITIMER_PROF, 0)
        _answer(answer, *images)


def taken(task: dict[str, Any]) -> tuple[dict[str, object], list[Image.Image]]:
    """Return the answer about a file, and its pixels for each size; DataError if the file is rejected.

    A task without sizes asks for the tags that a draft in the format of a hospital repeats, as DICOM JSON.
    """
    file = Path(task["file"])
    if "sizes" not in task:
        from diffrgen.clinical.source import read_source

        return {"error": None, "tags": read_source(file).tags.to_json_dict()}, []
    images, text = decoded(file, task["sizes"], task["max_pixels"])
    facts = _facts(dicom_study(file) or NO_TAGS, bytes.fromhex(task["key"]))
    shapes = [image.size for image in images]
    return {"error": None, "shapes": shapes, "text": [astuple(region) for region in text], **facts}, images


def decoded(
    file: Path, sizes: list[int | None], max_pixels: int
) -> tuple[list[Image.Image], tuple[TextRegion, ...]]:
    """Return what `read_resized` gives for each of `sizes`, and the text found in the image.

    Raises DataError for a damaged file or one over `max_pixels`.
    """
    if file.suffix == ".dcm":
        image = read_dicom(file, max_pixels=max_pixels)
        return [image if size is None else resized(image, size) for size in sizes], find_text(image)
    probe_grey(file, max_pixels=max_pixels)
    images = [read_resized(file, size) for size in sizes]
    return images, find_text(read_grey(file, at_least=SIDE))


def _facts(tags: DicomStudy, key: bytes) -> dict[str, str]:
    """What the service learns of a file's tags: whether two are the same, and the view."""
    digests = {name: _digest(getattr(tags, name), key) for name in ("patient", "study")}
    return {**digests, "view": tags.view}


def _digest(value: str, key: bytes) -> str:
    return hmac.new(key, value.encode(errors="backslashreplace"), "sha256").hexdigest() if value else ""


def _end_with_parent() -> None:
    """Have the kernel end this process when the service ends, however it ends; elsewhere than on Linux its input ends."""
    if sys.platform.startswith("linux"):
        service = os.getppid()
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != service:
            sys.exit()


def _bound_memory() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0]) if sys.platform.startswith("linux") else 0
    limit = pages * resource.getpagesize() + MOST_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _answer(words: dict[str, object], *images: Image.Image) -> None:
    sys.stdout.buffer.write(json.dumps(words).encode() + b"\n")
    for image in images:
        sys.stdout.buffer.write(image.tobytes())
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()

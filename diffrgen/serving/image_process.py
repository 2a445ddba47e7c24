"""A separate process that decodes uploads to grey pixels: `python -m diffrgen.serving.image_process`.

Decoders are native code that a hostile file can make crash, run for hours or exhaust the memory. Here they end only
this process, and only the grey pixels, the view and digests of two tags of a file reach the service.

Protocol (the other side is image_reader.py): for each file one line of JSON, {"file", "sizes", "max_pixels", "seconds",
"key"}, on standard input. The reply on standard output is a header, one line of JSON: {"error": null or the reason of a
rejection, "shapes": [[width, height] of each image], "patient", "study", "view", "text": see `Upload`}, then the pixels of
these images, one byte each. A request without "sizes" gets {"error", "tags"} and no pixels.
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

# Memory beyond that of the started process: a few copies of the largest image as float64.
MOST_BYTES = 2 << 30
PR_SET_PDEATHSIG = 1
NO_TAGS = DicomStudy("", "", "unknown")


def main() -> None:
    """Reply to request after request until standard input ends."""
    _end_with_parent()
    with contextlib.suppress(ImportError):  # without it `read_dicom` names the package to install
        import pydicom.pixels.decoders  # noqa: F401
    _bound_memory()
    _reply({"ready": True})
    for line in sys.stdin:
        request = json.loads(line)
        # Counts processor time of all threads; the signal ends the process within a decoder too.
        signal.setitimer(signal.ITIMER_PROF, request["seconds"])
        try:
            header, images = process_request(request)
        except DataError as error:
            header, images = {"error": str(error)}, []
        except MemoryError:
            header, images = {"error": "the image requires too much memory"}, []
        signal.setitimer(signal.ITIMER_PROF, 0)
        _reply(header, *images)


def process_request(request: dict[str, Any]) -> tuple[dict[str, object], list[Image.Image]]:
    """Return the header of the reply and the image at each size; DataError if the file is rejected.

    A request without sizes asks for the tags that structured reports and FHIR resources repeat, as DICOM JSON.
    """
    file = Path(request["file"])
    if "sizes" not in request:
        from diffrgen.clinical.source import read_source

        return {"error": None, "tags": read_source(file).tags.to_json_dict()}, []
    images, text = decode(file, request["sizes"], request["max_pixels"])
    tags = _digested(dicom_study(file) or NO_TAGS, bytes.fromhex(request["key"]))
    shapes = [image.size for image in images]
    return {"error": None, "shapes": shapes, "text": [astuple(region) for region in text], **tags}, images


def decode(
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


def _digested(tags: DicomStudy, key: bytes) -> dict[str, str]:
    """Return the digests of patient and study, which can only be compared with each other, and the view."""
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


def _reply(header: dict[str, object], *images: Image.Image) -> None:
    sys.stdout.buffer.write(json.dumps(header).encode() + b"\n")
    for image in images:
        sys.stdout.buffer.write(image.tobytes())
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()

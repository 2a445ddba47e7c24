"""Decodes uploads in a process that may crash, hang or be killed without the service."""

from __future__ import annotations

import io
import json
import secrets
import select
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from PIL import Image

from diffrgen.clinical.source import SourceImage
from diffrgen.errors import DataError
from diffrgen.images.burned_text import TextRegion
from diffrgen.images.dicom import START, has_dicom_mark
from diffrgen.serving.options import UploadLimits
from diffrgen.serving.refusals import for_visitors
from diffrgen.serving.upload import Upload

PNG, JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
# A DICOM data set without preamble and mark begins with an element of group 2 or 8, little-endian.
HEADLESS = (b"\x02\x00", b"\x08\x00")
# Seconds of wall-clock time, generous for a loaded machine; the process itself limits its processor time.
STARTS_WITHIN, REPLIES_WITHIN = 120.0, 120.0
DAMAGED = "the file is damaged, or requires too much memory or time"


class ImageReader:
    """Runs `image_process` and has it decode one file after another; starts it early, and again if a file has ended it.

    folder: holds a file while it is decoded; sizes: what the networks read of an image, see `read_resized`.
    """

    def __init__(self, folder: Path, sizes: Sequence[int | None], limits: UploadLimits) -> None:
        self._folder, self._sizes, self._limits = folder, tuple(sizes), limits
        # One thread for the service's lifetime, because the process ends with the thread that started it.
        self._thread = ThreadPoolExecutor(1, "image-reader")
        self._process: subprocess.Popen[bytes] | None = None
        self._closed = False
        # Digests of tags can be compared while the service runs, and are meaningless without this key.
        self._key = secrets.token_hex(32)
        self._thread.submit(self._running)

    def read(self, content: bytes) -> Future[Upload]:
        """Decode an uploaded file.

        The future raises DataError, in words for the visitor, where it is no PNG, JPEG or DICOM file, is damaged or is
        over a limit of `limits`.
        """
        return self._thread.submit(self._read, content)

    def read_tags(self, content: bytes, name: str) -> Future[SourceImage]:
        """Return the tags of an uploaded DICOM file that a draft of its report repeats; name: what messages call it.

        The future raises DataError, in words for the visitor, where no such draft can be made of the file.
        """
        return self._thread.submit(self._read_tags, content, name)

    def close(self) -> None:
        """End the process, also in the middle of a file."""
        self._closed = True
        if self._process is not None:
            self._process.kill()
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _read(self, content: bytes) -> Upload:
        file = self._folder / f"image{_suffix(content)}"
        request = {"file": str(file), "sizes": self._sizes, "max_pixels": self._limits.max_pixels, "key": self._key}
        try:
            file.write_bytes(content)
            with for_visitors(self._limits):
                return self._decode({**request, "seconds": self._limits.decode_seconds})
        finally:
            file.unlink(missing_ok=True)

    def _read_tags(self, content: bytes, name: str) -> SourceImage:
        file = self._folder / "image.dcm"
        try:
            file.write_bytes(content)
            _, header = self._request({"file": str(file), "seconds": self._limits.decode_seconds})
        except DataError as error:
            raise DataError(str(error).replace(str(file), name)) from None
        except (OSError, EOFError):
            self._end()
            raise DataError(f"{name}: {DAMAGED}") from None
        finally:
            file.unlink(missing_ok=True)
        import pydicom

        return SourceImage(Path(name), pydicom.Dataset.from_json(header["tags"]))

    def _request(self, request: dict[str, object]) -> tuple[_Reply, dict[str, Any]]:
        """Send a request to the process and return the reply and its header; DataError if the file is rejected."""
        process = self._running()
        assert process.stdin is not None  # `_running` opens a pipe
        process.stdin.write(json.dumps(request).encode() + b"\n")
        process.stdin.flush()
        reply = _Reply(process, REPLIES_WITHIN)
        header = reply.header()
        if header["error"] is not None:
            raise DataError(header["error"])
        return reply, header

    def _decode(self, request: dict[str, object]) -> Upload:
        try:
            reply, header = self._request(request)
            images = dict(zip(self._sizes, map(reply.image, header["shapes"]), strict=True))
            text = tuple(TextRegion(*region) for region in header["text"])
            return Upload(images, header["patient"], header["study"], header["view"], text)
        except (OSError, EOFError):  # TimeoutError is an OSError
            self._end()
            raise DataError(DAMAGED) from None

    def _running(self) -> subprocess.Popen[bytes]:
        """Return the process, started if necessary, once it accepts requests."""
        if self._process is None:
            if self._closed:
                raise EOFError
            # What decoders print may quote the file.
            self._process = subprocess.Popen(
                [sys.executable, "-m", "diffrgen.serving.image_process"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
            _Reply(self._process, STARTS_WITHIN).header()
        return self._process

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    pipe.close()
            self._process = None


class _Reply:
    """Reads a reply of the process; EOFError if the process has ended, TimeoutError if it takes longer than `seconds`."""

    def __init__(self, process: subprocess.Popen[bytes], seconds: float) -> None:
        assert isinstance(process.stdout, io.BufferedReader)  # `_running` opens a pipe
        self._output, self._end, self._received = process.stdout, time.monotonic() + seconds, b""

    def header(self) -> dict[str, Any]:
        while b"\n" not in self._received:
            self._received += self._more()
        line, self._received = self._received.split(b"\n", 1)
        return json.loads(line)

    def image(self, shape: tuple[int, int]) -> Image.Image:
        parts, missing = [self._received], shape[0] * shape[1] - len(self._received)
        while missing > 0:
            parts.append(self._more())
            missing -= len(parts[-1])
        pixels = b"".join(parts)
        self._received = pixels[shape[0] * shape[1] :]
        return Image.frombytes("L", (shape[0], shape[1]), pixels[: shape[0] * shape[1]])

    def _more(self) -> bytes:
        if not select.select([self._output], [], [], max(0.0, self._end - time.monotonic()))[0]:
            raise TimeoutError
        part = self._output.read1(1 << 20)
        if not part:
            raise EOFError
        return part


def _suffix(content: bytes) -> str:
    """The ending of the format that `content` begins like; other formats have no business here."""
    if content.startswith(PNG):
        return ".png"
    if content.startswith(JPEG):
        return ".jpg"
    if has_dicom_mark(content[:START]) or content.startswith(HEADLESS):
        return ".dcm"
    what = "is empty" if not content else "is none of them"
    raise DataError(f"This is not an X-ray image: needed a PNG, JPG or DICOM file; this one {what}.")

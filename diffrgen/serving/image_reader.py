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
# How a data set begins that lacks the preamble and the mark: an element of group 2 or 8, little-endian.
HEADLESS = (b"\x02\x00", b"\x08\x00")
# Wall-clock time that a machine under any load needs at most; processor time is limited by the process itself.
STARTS_WITHIN, ANSWERS_WITHIN = 120.0, 120.0
DAMAGED = "the file is damaged, or asks for too much memory or time"


class ImageReader:
    """An `image_process` that is started early, and anew when a file has ended it. Works on one file after another.

    folder: holds a file while it is decoded; sizes: what the networks read of an image, see `read_resized`.
    """

    def __init__(self, folder: Path, sizes: Sequence[int | None], limits: UploadLimits) -> None:
        self._folder, self._sizes, self._limits = folder, tuple(sizes), limits
        # A thread for life, as the process ends with the thread that started it.
        self._thread = ThreadPoolExecutor(1, "image-reader")
        self._process: subprocess.Popen[bytes] | None = None
        self._closed = False
        # Digests of tags can be compared while the service runs, and mean nothing to anybody else.
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
        task = {"file": str(file), "sizes": self._sizes, "max_pixels": self._limits.max_pixels, "key": self._key}
        try:
            file.write_bytes(content)
            with for_visitors(self._limits):
                return self._asked({**task, "seconds": self._limits.decode_seconds})
        finally:
            file.unlink(missing_ok=True)

    def _read_tags(self, content: bytes, name: str) -> SourceImage:
        file = self._folder / "image.dcm"
        try:
            file.write_bytes(content)
            _, words = self._answered({"file": str(file), "seconds": self._limits.decode_seconds})
        except DataError as error:
            raise DataError(str(error).replace(str(file), name)) from None
        except (OSError, EOFError):
            self._end()
            raise DataError(f"{name}: {DAMAGED}") from None
        finally:
            file.unlink(missing_ok=True)
        import pydicom

        return SourceImage(Path(name), pydicom.Dataset.from_json(words["tags"]))

    def _answered(self, task: dict[str, object]) -> tuple[_Answer, dict[str, Any]]:
        """Have the process work on a file: its answer, and the words of it; DataError if the file is rejected."""
        process = self._running()
        assert process.stdin is not None  # a pipe, as `_running` asked
        process.stdin.write(json.dumps(task).encode() + b"\n")
        process.stdin.flush()
        answer = _Answer(process, ANSWERS_WITHIN)
        words = answer.words()
        if words["error"] is not None:
            raise DataError(words["error"])
        return answer, words

    def _asked(self, task: dict[str, object]) -> Upload:
        try:
            answer, words = self._answered(task)
            images = dict(zip(self._sizes, map(answer.image, words["shapes"]), strict=True))
            text = tuple(TextRegion(*region) for region in words["text"])
            return Upload(images, words["patient"], words["study"], words["view"], text)
        except (OSError, EOFError):  # TimeoutError is an OSError
            self._end()
            raise DataError(DAMAGED) from None

    def _running(self) -> subprocess.Popen[bytes]:
        """Return the process, once it can be asked."""
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
            _Answer(self._process, STARTS_WITHIN).words()
        return self._process

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    pipe.close()
            self._process = None


class _Answer:
    """Takes what the process answers; EOFError if the process has ended, TimeoutError if it is silent for too long."""

    def __init__(self, process: subprocess.Popen[bytes], seconds: float) -> None:
        assert isinstance(process.stdout, io.BufferedReader)  # a pipe, as `_running` asked
        self._output, self._end, self._taken = process.stdout, time.monotonic() + seconds, b""

    def words(self) -> dict[str, Any]:
        while b"\n" not in self._taken:
            self._taken += self._more()
        line, self._taken = self._taken.split(b"\n", 1)
        return json.loads(line)

    def image(self, shape: tuple[int, int]) -> Image.Image:
        parts, missing = [self._taken], shape[0] * shape[1] - len(self._taken)
        while missing > 0:
            parts.append(self._more())
            missing -= len(parts[-1])
        pixels = b"".join(parts)
        self._taken = pixels[shape[0] * shape[1] :]
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

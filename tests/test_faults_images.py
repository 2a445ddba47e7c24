"""Small PNG and JPEG files that would cost minutes or gigabytes, and files of formats that nobody meant to read.

Limits are tested by what reaches a decoder and by the memory that a process may have, never by the clock.
"""

from __future__ import annotations

import ast
import io
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import diffrgen
from diffrgen.errors import DataError
from diffrgen.images import codestream, probe_grey, read_grey

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the limit on addresses is Linux's")
GREY = np.add.outer(np.arange(64), np.arange(64)).astype(np.uint8)
# Addresses of the interpreter with NumPy and Pillow; 89 million pixels of RGBA are 358 MB, and as grey 89 MB.
MEGABYTES = 1500
READ = """
import resource, sys
import numpy, PIL.PngImagePlugin, PIL.JpegImagePlugin
from diffrgen.errors import DataError
from diffrgen.images import probe_grey, read_grey
base = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
limit = base + int(sys.argv[2]) * 1_000_000
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
for read in (probe_grey, read_grey):
    try:
        read(sys.argv[1])
        print("read")
    except DataError as error:
        print(error)
"""


def chunk(kind: bytes, body: bytes = b"") -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(
    width: int = 64, height: int = 64, depth: int = 8, colour: int = 0, *, before: bytes = b"", after: bytes = b""
) -> bytes:
    """A PNG of zeros, which deflate to a thousandth."""
    row = bytes(1 + codestream.SAMPLES[colour] * width * depth // 8)
    packer = zlib.compressobj(6)
    body = b"".join([*(packer.compress(row) for _ in range(height)), packer.flush()])
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return codestream.PNG_SIGNATURE + head + before + chunk(b"IDAT", body) + after + chunk(b"IEND")


def jpeg(picture: Image.Image | None = None, **options: Any) -> bytes:
    stream = io.BytesIO()
    (picture or Image.fromarray(GREY)).save(stream, "JPEG", **options)
    return stream.getvalue()


def scanned(stream: bytes, count: int) -> bytes:
    """The JPEG `stream` with its last scan `count` times more."""
    last = stream.rfind(b"\xff\xda")
    return stream[:last] + stream[last:-2] * count + stream[-2:]


def segment(marker: int, body: bytes = b"") -> bytes:
    return struct.pack(">BBH", 0xFF, marker, 2 + len(body)) + body


def exif(entries: int) -> bytes:
    """An EXIF directory each of whose entries names the whole block again."""
    size = 6 + 8 + 2 + 12 * entries
    head = b"II*\0" + struct.pack("<IH", 8, entries)
    return head + b"".join(struct.pack("<HHII", tag % 65536, 1, size - 14, 8) for tag in range(1, entries + 1))


def refused(path: Path, content: bytes) -> str:
    """Write `content`; the refusal of both readers before any decoder of Pillow's runs."""
    path.write_bytes(content)
    messages = set()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Image, "open", None)
        for read in (probe_grey, read_grey):
            with pytest.raises(DataError) as caught:
                read(path)
            messages.add(str(caught.value))
    assert len(messages) == 1
    message = messages.pop()
    assert str(path) in message
    return message


def test_healthy_files_at_the_limits_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(scanned(jpeg(progressive=True), codestream.MAX_SCANS - 10))
    assert np.abs(np.asarray(read_grey(path)).astype(int) - GREY).mean() < 8
    many = segment(0xFE, b"text") * (codestream.MAX_SEGMENTS - 100)
    path.write_bytes(jpeg()[:2] + many + jpeg()[2:])
    assert read_grey(path).size == (64, 64)
    path = tmp_path / "a.png"
    path.write_bytes(png(before=chunk(b"tIME") * 1000, after=chunk(b"IDAT") * 60_000))
    probe_grey(path)
    assert read_grey(path).size == (64, 64)


def endless() -> dict[str, tuple[bytes, str]]:
    """Files of segments without end, with the words of the refusal."""
    start, rest = jpeg()[:2], jpeg()[2:]
    return {
        "progressive scans": (scanned(jpeg(progressive=True), 20_000), "the JPEG has 101 scans or more"),
        "scans": (scanned(jpeg(), 4_000), "the JPEG has 101 scans or more"),
        "segments": (start + segment(0xFE) * 20_000 + rest, "over the limit of 10,000 segments"),
        "fill": (start + b"\xff" * 1_000_000 + rest, "over 100,000 bytes between its segments"),
        "stuffing": (start + b"\xff\x00" * 1_000_000 + rest, "over 100,000 bytes between its segments"),
        "exif": (start + segment(0xE1, b"Exif\0\0" + bytes(60_000)) * 3 + rest, "EXIF blocks are over the limit"),
        "chunks": (png(after=chunk(b"IDAT") * 70_000), "the PNG has over the limit of 65,536 chunks"),
        "texts": (png(before=chunk(b"tEXt", b"a\0") * 70_000), "the PNG has over the limit of 65,536 chunks"),
        "exif of a PNG": (png(before=chunk(b"eXIf", exif(20_000))), "EXIF block is over the limit of 65,535 bytes"),
    }


@pytest.mark.parametrize("kind", endless())
def test_segments_without_end_reach_no_decoder(tmp_path: Path, kind: str) -> None:
    content, message = endless()[kind]
    assert message in refused(tmp_path / "a.png", content)


def test_scans_count_by_the_size_of_the_picture(tmp_path: Path) -> None:
    """40 scans of 64 x 64 pixels are nothing; of 9,400 x 9,400 they are 55 million visits of blocks."""
    stream = scanned(jpeg(progressive=True), 40)
    at = stream.find(b"\xff\xc2") + 5
    (tmp_path / "a.jpg").write_bytes(stream)
    assert read_grey(tmp_path / "a.jpg").size == (64, 64)
    grown = stream[:at] + struct.pack(">HH", 9_400, 9_400) + stream[at + 4 :]
    message = "scans or more, over the limit for its size"
    assert message in refused(tmp_path / "b.jpg", scanned(grown, 10))
    colours = scanned(jpeg(Image.new("RGB", (64, 64)), progressive=True), 12)
    at = colours.find(b"\xff\xc2") + 5
    assert message in refused(tmp_path / "c.jpg", colours[:at] + struct.pack(">HH", 9_400, 9_400) + colours[at + 4 :])


def test_the_size_that_any_frame_of_a_jpeg_says_counts(tmp_path: Path) -> None:
    whole = jpeg()
    at = whole.find(b"\xff\xc0") + 5
    large = whole[:at] + struct.pack(">HH", 65_500, 65_500) + whole[at + 4 :]
    assert "65500 x 65500 pixels are over the limit" in refused(tmp_path / "a.jpg", large)


def test_exif_in_the_texts_of_a_png_is_limited_too(tmp_path: Path) -> None:
    digits = exif(20_000).hex().encode()
    body = b"Raw profile type exif\0\0" + zlib.compress(b"\nexif\n%8d\n" % (len(digits) // 2) + digits)
    path = tmp_path / "a.png"
    path.write_bytes(png(before=chunk(b"zTXt", body)))
    with pytest.raises(DataError, match=r"a\.png"):
        read_grey(path)


@pytest.mark.parametrize(
    ("start", "kind"),
    [
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n%%EndComments\n", "eps"),
        (b"II*\0\x08\0\0\0", "tif"),
        (b"GIF89a@\0@\0", "gif"),
        (b"BM" + bytes(60), "bmp"),
        (b"P5 64 64 255\n" + bytes(4096), "ppm"),
        (b"RIFF\x10\0\0\0WEBPVP8 ", "webp"),
        (b"8BPS\0\x01", "psd"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "jp2"),
        (b"\xff\x4f\xff\x51", "j2k"),
    ],
)
@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.jpeg"])
def test_a_file_of_another_format_reaches_no_decoder_whatever_its_name(
    tmp_path: Path, start: bytes, kind: str, name: str
) -> None:
    assert "expected an image (PNG, JPEG), got a file that begins with" in refused(tmp_path / name, start + bytes(64))


def test_no_interpreter_is_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Ghostscript that leaves a mark stands on the PATH."""
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "gs").write_text(f"#!/bin/sh\necho started > {tmp_path}/mark\n")
    (tools / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", str(tools), prepend=":")
    path = tmp_path / "a.png"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n%%EndComments\nshowpage\n%%EOF\n")
    with pytest.raises(DataError):
        read_grey(path)
    assert not (tmp_path / "mark").exists()


def test_every_image_is_opened_with_a_list_of_formats() -> None:
    """`Image.open` without formats tries all of Pillow's."""
    for path in sorted(Path(diffrgen.__file__).parent.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("Image.open", "PIL.Image.open"):
                assert "formats" in {keyword.arg for keyword in node.keywords}, f"{path}:{node.lineno}"


@linux
@pytest.mark.parametrize(
    ("width", "height", "depth", "colour"), [(9_459, 9_459, 8, 6), (9_459, 9_459, 16, 0), (6_600, 6_600, 16, 6)]
)
def test_large_pictures_of_every_kind_fit_into_bounded_memory(
    tmp_path: Path, width: int, height: int, depth: int, colour: int
) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png(width, height, depth, colour))
    assert path.stat().st_size < 1_000_000
    assert read_within(path) == ["read", "read"]


@linux
def test_what_would_not_fit_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png(9_400, 9_400, 16, 6))
    assert all("9400 x 9400 pixels of 707 MB are over the limit" in line for line in read_within(path))
    # The limit is one: with less memory than a picture has pixels, reading fails.
    path.write_bytes(png(9_459, 9_459, 8, 6))
    assert "read" not in read_within(path, megabytes=200)[1:]


def read_within(path: Path, megabytes: int = MEGABYTES) -> list[str]:
    """What a process says that may take `megabytes` more than it has at its start, for probing and for reading."""
    done = subprocess.run(
        [sys.executable, "-c", READ, str(path), str(megabytes)], capture_output=True, text=True, check=False
    )
    return done.stdout.splitlines()


def test_an_alpha_picture_in_strips_is_the_same_as_in_one(tmp_path: Path) -> None:
    """600 rows make three strips; transparent pixels become black, half transparent ones half as bright."""
    random = np.random.default_rng(0)
    colours = random.integers(0, 256, (600, 50, 4), dtype=np.uint8)
    path = tmp_path / "a.png"
    Image.fromarray(colours).save(path)
    alpha = colours[..., 3:] / 255.0
    luma = (colours[..., :3] * alpha) @ np.array([0.299, 0.587, 0.114])
    assert np.abs(np.asarray(read_grey(path)) - luma).max() <= 1.5
    palette = Image.fromarray(colours[..., 0]).convert("P")
    palette.save(path, transparency=7)
    expected = np.where(np.asarray(palette) == 7, 0, np.asarray(palette.convert("L")))
    np.testing.assert_array_equal(np.asarray(read_grey(path)), expected)

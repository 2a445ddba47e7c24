"""Two hundred uploads that a service on the open net would meet: bombs, polyglots, disguises, damage, oddities."""

from __future__ import annotations

import io
import random
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from damage import PNG, damaged
from malformed_readers import make_dicoms, make_pictures
from PIL import Image

DAMAGED_PICTURES, DAMAGED_DICOMS = 70, 60
HUGE = 60_000
# What begins a JPEG's frame, with its size behind: baseline, extended, progressive, lossless, JPEG-LS.
FRAMES = (0xC0, 0xC1, 0xC2, 0xC3, 0xF7)


class Upload(NamedTuple):
    """What is sent, and what it is."""

    name: str
    content: bytes


def hostile_uploads(folder: Path, seed: int = 0) -> list[Upload]:
    """Return every upload; `folder` is where healthy files are written before they are damaged."""
    pictures, dicoms = make_pictures(folder), make_dicoms(folder)
    rng = random.Random(seed)
    uploads = [*bombs(), *disguises(), *oddities(), *polyglots(pictures), *empty_ones(), *dicom_tricks(dicoms)]
    for count, files in ((DAMAGED_PICTURES, pictures), (DAMAGED_DICOMS, dicoms)):
        for number in range(count):
            path = files[number % len(files)]
            content = damaged(path.read_bytes(), path.name, rng)
            uploads.append(Upload(f"damaged {number}, {path.name}", content))
    for path in (*pictures, *dicoms):
        whole = path.read_bytes()
        for part in (0.1, 0.5, 0.98):
            uploads.append(Upload(f"{part:.0%} of {path.name}", whole[: int(part * len(whole))]))
    return uploads


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, *chunks: bytes, pixels: bytes = b"", depth: int = 8, colour: int = 0) -> bytes:
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return PNG + head + b"".join(chunks) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def bombs() -> Iterator[Upload]:
    """Small files that ask for a lot of memory."""
    zeros = zlib.compress(bytes(100_000_000), 9)
    few = zlib.compress(bytes(64 * 65), 9)
    yield Upload("a header of 3.6 thousand million pixels", png(HUGE, HUGE))
    yield Upload("a header of 2^31 x 2^31", png(2**31 - 1, 2**31 - 1))
    yield Upload("no width", png(0, 10))
    yield Upload("a square over the limit", saved(Image.new("L", (6000, 6000)), "PNG"))
    yield Upload("a colour square within the limit", saved(Image.new("RGB", (4000, 4000)), "PNG", compress_level=1))
    yield Upload("more pixels than the header says", png(64, 64, pixels=zeros))
    yield Upload("a compressed text of 100 MB", png(64, 64, chunk(b"zTXt", b"a\0\0" + zeros), pixels=few))
    yield Upload("a colour profile of 100 MB", png(64, 64, chunk(b"iCCP", b"a\0\0" + zeros), pixels=few))
    yield Upload("an international text of 100 MB", png(64, 64, chunk(b"iTXt", b"a\0\1\0\0\0" + zeros), pixels=few))
    yield Upload("ten thousand chunks", png(64, 64, *[chunk(b"tEXt", b"a\0b")] * 10_000, pixels=few))
    yield Upload("a chunk longer than the file", PNG + struct.pack(">I", 2**31 - 1) + b"IHDR")
    yield Upload("a strip of 29 million pixels", saved(Image.new("L", (29_000_000, 1)), "PNG"))
    yield Upload("a tall strip", saved(Image.new("L", (1, 900_000)), "PNG"))
    jpeg = bytearray(saved(Image.new("L", (64, 64)), "JPEG"))
    frame = jpeg.index(b"\xff\xc0") + 5
    jpeg[frame : frame + 4] = b"\xff\xff\xff\xff"
    yield Upload("a JPEG of 65535 x 65535", bytes(jpeg))
    scans = saved(Image.effect_noise((200, 200), 60), "JPEG", progressive=True)
    body = scans.index(b"\xff\xda")
    yield Upload("a thousand scans", scans[:body] + (scans[body:-2]) * 300 + scans[-2:])
    frames = [Image.new("P", (500, 500), index % 256) for index in range(200)]
    yield Upload("a GIF of 200 frames", saved(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    yield Upload("a file of 41 MB", PNG + bytes(41_000_000))


def disguises() -> Iterator[Upload]:
    """Other formats, whatever their names say; some of their readers start programs or fetch addresses."""
    texts = {
        "text": "The heart is normal in size.",
        "HTML": "<html><script>alert(1)</script><img src=x onerror=alert(1)></html>",
        "SVG": "<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>",
        "XML with an entity": "<?xml version='1.0'?><!DOCTYPE a [<!ENTITY x SYSTEM 'file:///etc/passwd'>]><a>&x;</a>",
        "PostScript": "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n(%pipe%id) (w) file\n",
        "PDF": "%PDF-1.7\n1 0 obj<</OpenAction<</S/JavaScript/JS(app.alert(1))>>>>endobj\n",
        "ImageMagick": "push graphic-context\nimage over 0,0 0,0 'https://127.0.0.1/x.png'\npop graphic-context",
        "XPM": '/* XPM */\nstatic char *a[] = {"1 1 1 1", "a c #000000", "a"};',
        "shell": "#!/bin/sh\ntouch /tmp/owned\n",
        "URL": "[InternetShortcut]\nURL=file:///etc/passwd\n",
        "JSON": '{"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}',
    }
    for kind, text in texts.items():
        yield Upload(kind, text.encode())
    yield Upload("a pickle", b"cos\nsystem\n(S'touch /tmp/owned'\ntR.")
    yield Upload("a ZIP", b"PK\x03\x04" + bytes(200))
    yield Upload("an ELF program", b"\x7fELF" + bytes(200))
    for kind in ("BMP", "TIFF", "WEBP", "ICO", "PPM", "TGA", "PCX", "SGI", "JPEG2000"):
        yield Upload(f"a {kind}", saved(Image.new("RGB", (32, 32), (90, 90, 90)), kind))


def oddities() -> Iterator[Upload]:
    """Valid images that few programs write."""
    ramp = np.add.outer(np.arange(80), np.arange(90)).astype(np.uint8)
    grey = Image.fromarray(ramp)
    yield Upload("one pixel", saved(Image.new("L", (1, 1)), "PNG"))
    yield Upload("one bit", saved(grey.convert("1"), "PNG"))
    yield Upload("16 bits", saved(Image.fromarray(ramp.astype(np.uint16) * 257), "PNG"))
    yield Upload("12 of 16 bits", saved(Image.fromarray(ramp.astype(np.uint16) * 20), "PNG"))
    yield Upload("16 bits of colour", png(64, 64, pixels=zlib.compress(bytes(64 * (1 + 64 * 6))), depth=16, colour=2))
    yield Upload("all transparent", saved(Image.new("RGBA", (64, 64), (255, 255, 255, 0)), "PNG"))
    yield Upload("a palette with transparency", saved(grey.convert("P"), "PNG", transparency=bytes(range(256))))
    yield Upload("a palette without colours", png(64, 64, pixels=zlib.compress(bytes(64 * 65)), colour=3))
    yield Upload("an animated PNG", saved(grey, "PNG", save_all=True, append_images=[grey] * 20))
    yield Upload("CMYK", saved(Image.merge("CMYK", (grey,) * 4), "JPEG"))
    yield Upload("YCbCr with its colours cut", saved(grey.convert("RGB"), "JPEG", subsampling=2, quality=1))
    for orientation in (3, 6, 200, 65535):
        exif = Image.Exif()
        exif[0x0112], exif[0x010E] = orientation, "DOE^JANE 1970"
        yield Upload(f"orientation {orientation}", saved(grey, "JPEG", exif=exif))


def polyglots(pictures: list[Path]) -> Iterator[Upload]:
    """Files that are two things at once."""
    by_name = {path.name: path.read_bytes() for path in pictures}
    markup = b"<script>document.title='owned'</script>"
    yield Upload("PNG and ZIP", by_name["grey.png"] + b"PK\x03\x04" + bytes(300))
    yield Upload("PNG and HTML", by_name["grey.png"] + markup)
    yield Upload("PNG whose text is HTML", png(64, 64, chunk(b"tEXt", b"Title\0" + markup), pixels=zlib.compress(bytes(64 * 65))))
    jpeg = by_name["grey.jpg"]
    comment = b"\xff\xfe" + struct.pack(">H", len(markup) + 2) + markup
    yield Upload("JPEG whose comment is HTML", jpeg[:2] + comment + jpeg[2:])
    yield Upload("JPEG, then PNG", jpeg + by_name["grey.png"])
    yield Upload("PNG that says DICM", by_name["grey.png"][:128].ljust(128, b"\0") + b"DICM" + bytes(400))
    yield Upload("a program in a DICOM preamble", (b"MZ" + bytes(126)) + b"DICM" + bytes(400))
    yield Upload("GIF and JavaScript", b"GIF89a/*" + bytes(20) + b"*/=1;alert(1)")


def empty_ones() -> Iterator[Upload]:
    """Nothing, or next to nothing."""
    for content in (b"", b"\0", b"\xff", b"\0" * 131, bytes(4096), bytes(128) + b"DICM", PNG, b"\xff\xd8\xff", b"\n" * 3):
        yield Upload(f"{len(content)} bytes of nothing", content)


def dicom_tricks(dicoms: list[Path]) -> Iterator[Upload]:
    """DICOM files whose tags lie, or whose pixel data are another size than they say."""
    import pydicom

    by_name = {path.stem: path for path in dicoms}

    def edited(**tags: object) -> bytes:
        dataset = pydicom.dcmread(by_name["CT_small"])
        for name, value in tags.items():
            setattr(dataset, name, value)
        stream = io.BytesIO()
        dataset.save_as(stream)
        return stream.getvalue()

    yield Upload("DICOM of 65535 x 65535", edited(Rows=65535, Columns=65535))
    yield Upload("DICOM without rows", edited(Rows=0))
    yield Upload("DICOM of 1000 frames", edited(NumberOfFrames=1000))
    yield Upload("DICOM of 64 bits", edited(BitsAllocated=64, BitsStored=64, HighBit=63))
    yield Upload("DICOM without pixels", edited(PixelData=b""))
    yield Upload("DICOM with a slope of no number", edited(RescaleSlope="nan", RescaleIntercept="-inf"))
    yield Upload("DICOM with a window of nothing", edited(WindowCenter="0", WindowWidth="0"))
    codestream = bytearray(by_name["JPEG2000"].read_bytes())
    size = codestream.index(b"\xff\x51") + 6
    for tile in (False, True):
        codestream[size : size + 8] = struct.pack(">II", HUGE, HUGE)
        if tile:
            codestream[size + 16 : size + 24] = struct.pack(">II", HUGE, HUGE)
        yield Upload(f"DICOM around a JPEG 2000 of {HUGE} x {HUGE}, tile {tile}", bytes(codestream))
    for name in ("SC_rgb_jpeg_gdcm", "MR_small_jpeg_ls_lossless"):
        stream = bytearray(by_name[name].read_bytes())
        start = stream.index(b"\xff\xd8\xff")
        frame = next(at for at in range(start, len(stream)) if stream[at] == 0xFF and stream[at + 1] in FRAMES) + 5
        stream[frame : frame + 4] = b"\xff\xff\xff\xff"
        yield Upload(f"DICOM around a larger picture, {name}", bytes(stream))

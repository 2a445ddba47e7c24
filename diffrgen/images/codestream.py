"""The header of a compressed image, read before any decoder runs: its size, scans, tiles and blocks.

A JPEG, JPEG-LS, JPEG 2000 or PNG file of some kB may ask a decoder for gigabytes or minutes. Each walk here takes steps that
grow with the number of segments, of which there are few in a healthy file, and ends with a DataError at the limits below.
"""

from __future__ import annotations

import mmap
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from diffrgen.errors import DataError

Bytes = bytes | mmap.mmap

# A progressive JPEG usually has about 10 scans; optimisers write up to about 30.
MAX_SCANS = 100
# Blocks of 8 x 8 times scans: 10 scans of a colour picture of 89 million pixels. One visit takes some 20 ns.
MAX_VISITS = 64_000_000
# Segments and chunks, which are read in Python: a PNG of 178 MB in chunks of 8 kB has 22,000.
MAX_SEGMENTS, MAX_CHUNKS = 10_000, 65_536
# Bytes between a JPEG's segments before its first scan, which Pillow reads one by one.
MAX_FILL = 100_000
# Maximum size of a JPEG's EXIF block; entries of a longer one could refer to the same bytes thousands of times.
MAX_EXIF = 65_535
# JPEG 2000: each tile or block takes about 100 bytes of a decoder's memory.
MAX_TILES, MAX_BLOCKS = 4_096, 4_000_000

PNG_SIGNATURE, JPEG_SIGNATURE = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
MARKER = re.compile(rb"\xff+[\xc0-\xcf\xd8-\xfe]")
SOI, EOI, SOS, APP1, DHT, JPG, DAC, SOF_LS = 0xD8, 0xD9, 0xDA, 0xE1, 0xC4, 0xC8, 0xCC, 0xF7
SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}


@dataclass(frozen=True, slots=True)
class Frame:
    """Size of an image in pixels and its values per pixel, from the codestream."""

    width: int
    height: int
    samples: int


def jpeg_frames(data: Bytes, place: str) -> list[Frame]:
    """Return the frames of a JPEG or JPEG-LS codestream, one in a healthy file.

    Raises:
        DataError: more than MAX_SCANS scans, MAX_SEGMENTS segments, MAX_EXIF bytes of EXIF or MAX_VISITS visits of blocks.
    """
    frames: list[Frame] = []
    scans = exif = 0
    for segments, (marker, position) in enumerate(_segments(data, place)):
        if segments > MAX_SEGMENTS:
            raise DataError(f"{place}: the JPEG has over the limit of {MAX_SEGMENTS:,} segments")
        if marker == SOS:
            scans += 1
        elif marker == APP1 and data[position + 2 : position + 6] == b"Exif":
            # Pillow joins the blocks of several segments.
            exif += int.from_bytes(data[position : position + 2], "big")
            if exif > MAX_EXIF:
                raise DataError(f"{place}: the JPEG's EXIF blocks are over the limit of {MAX_EXIF:,} bytes")
        elif marker == SOF_LS or (0xC0 <= marker <= 0xCF and marker not in (DHT, JPG, DAC)):
            head = data[position + 2 : position + 8]
            if len(head) == 6:
                _, height, width, samples = struct.unpack(">BHHB", head)
                frames.append(Frame(width, height, samples))
        blocks = max((frame.width * frame.height * frame.samples // 64 for frame in frames), default=0)
        if scans > MAX_SCANS or (scans > 1 and scans * blocks > MAX_VISITS):
            raise DataError(f"{place}: the JPEG has {scans} scans or more, over the limit for its size")
    return frames


def _segments(data: Bytes, place: str) -> Iterator[tuple[int, int]]:
    """Yield each marker of a JPEG with the position behind it; what a segment holds is not searched for markers."""
    position, fill, begun = 2, 0, False
    while (match := MARKER.search(data, position)) is not None:
        if not begun:
            fill += match.end() - position - 2
            if fill > MAX_FILL:
                raise DataError(f"{place}: the JPEG is damaged: over {MAX_FILL:,} bytes between its segments")
        marker, position = data[match.end() - 1], match.end()
        if marker == EOI:
            return
        yield marker, position
        begun = begun or marker == SOS
        if marker != SOI:
            position += int.from_bytes(data[position : position + 2], "big")


def jpeg2000_frame(data: Bytes, place: str) -> Frame | None:
    """Return the size in the SIZ segment of a JPEG 2000 codestream, with or without a JP2 box; None if there is none.

    Raises:
        DataError: more than MAX_TILES tiles, or MAX_BLOCKS code blocks, precincts or packets.
    """
    start = data.find(b"\xff\x4f\xff\x51")
    head = data[start + 6 : start + 42]
    if start < 0 or len(head) < 36:
        return None
    _, right, bottom, left, top, tile_width, tile_height, tile_left, tile_top, samples = struct.unpack(
        ">HIIIIIIIIH", head
    )
    width, height = right - left, bottom - top
    if width <= 0 or height <= 0 or not tile_width or not tile_height:
        return None
    tiles = -(-(right - tile_left) // tile_width) * -(-(bottom - tile_top) // tile_height)
    if tiles > MAX_TILES:
        raise DataError(f"{place}: the JPEG 2000 picture has {tiles:,} tiles, over the limit of {MAX_TILES:,}")
    frame = Frame(width, height, samples)
    _check_blocks(data, start + 4 + int.from_bytes(data[start + 4 : start + 6], "big"), frame, tiles, place)
    return frame


def _check_blocks(data: Bytes, position: int, frame: Frame, tiles: int, place: str) -> None:
    """Go through the main header and those of the tile parts, and check each style of coding that they set."""
    end_of_part = 0
    for _ in range(MAX_SEGMENTS):
        marker = data[position : position + 2]
        if len(marker) < 2 or marker == b"\xff\xd9":
            return
        if marker == b"\xff\x93":  # the tile part's data follow
            if end_of_part <= position:
                return
            position = end_of_part
            continue
        if marker == b"\xff\x90":
            length = int.from_bytes(data[position + 6 : position + 10], "big")
            end_of_part = position + length
        if marker == b"\xff\x52":
            _check_style(data[position + 4 : position + 48], 5, frame, tiles, place, components=frame.samples)
        if marker == b"\xff\x53":
            wide = 2 if frame.samples > 256 else 1
            _check_style(data[position + 4 + wide : position + 48], 1, frame, tiles, place, components=1)
        position += 2 + max(2, int.from_bytes(data[position + 2 : position + 4], "big"))
    raise DataError(f"{place}: the JPEG 2000 picture has over the limit of {MAX_SEGMENTS:,} segments")


def _check_style(style: bytes, at: int, frame: Frame, tiles: int, place: str, *, components: int) -> None:
    """Check the coding style of COD (`at` 5) or COC (1): the numbers of code blocks, precincts and packets."""
    if len(style) < at + 5:
        return
    layers = int.from_bytes(style[2:4], "big") if at == 5 else 1
    levels = min(style[at], 32)
    block_area = 1 << ((style[at + 1] & 15) + (style[at + 2] & 15) + 4)
    precincts = style[at + 5 : at + 6 + levels] if style[0] & 1 else b""
    count = 0
    for level in range(levels + 1):
        size = precincts[level] if level < len(precincts) else 0xFF
        down = levels - level
        width, height = (-(-side // (1 << down)) for side in (frame.width, frame.height))
        # Every tile has a precinct of each level, however small it is.
        count += max(tiles, -(-width // (1 << (size & 15))) * -(-height // (1 << (size >> 4))))
    blocks = frame.width * frame.height // block_area
    if max(count * max(layers, 1), blocks) * components > MAX_BLOCKS:
        raise DataError(f"{place}: the JPEG 2000 picture asks for over the limit of {MAX_BLOCKS:,} blocks or packets")


def check_png(data: Bytes, place: str, *, max_bytes: int) -> None:
    """Check the chunks of a PNG: how many there are, how long EXIF is, and what the picture takes once it is inflated.

    max_bytes: of the picture as it is stored, before conversion.

    Raises:
        DataError: over one of these limits.
    """
    position, count = len(PNG_SIGNATURE), 0
    while len(head := data[position : position + 8]) == 8:
        length, kind = int.from_bytes(head[:4], "big"), head[4:]
        if kind == b"IHDR" and length >= 10 and len(body := data[position + 8 : position + 18]) == 10:
            width, height, depth, colour = struct.unpack(">IIBB", body)
            size = width * height * depth * SAMPLES.get(colour, 4) // 8
            if size > max_bytes:
                raise DataError(
                    f"{place}: {width} x {height} pixels of {size / 1e6:.0f} MB are over the limit of {max_bytes}"
                )
        if kind == b"eXIf" and length > MAX_EXIF:
            raise DataError(f"{place}: the PNG's EXIF block is over the limit of {MAX_EXIF:,} bytes")
        count += 1
        if count > MAX_CHUNKS:
            raise DataError(f"{place}: the PNG has over the limit of {MAX_CHUNKS:,} chunks")
        position += 12 + length
        if kind == b"IEND":
            return

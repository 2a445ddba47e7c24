"""Damage to files, drawn from a seed: what disks, networks, editors and attackers make of an input."""

from __future__ import annotations

import gzip
import io
import random
import re
import struct
import zipfile
import zlib
from collections.abc import Callable

# What parsers stumble over: numbers too long to convert, half characters, nesting, marks of each format.
TOKENS = (
    *(b"1" * 5000, b"-1", b"0", b"1e999", b"NaN", b"99999999999999999999999", b"4294967295", b"0.5", b"true", b"null"),
    *(b"\\ud800", b"\xff\xfe", b"\x00", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\r", b"\n", b'"', b",", b"'" * 3, b"\\"),
    *(
        b"[" * 200_000,
        b"{}",
        b"[]",
        b'{"a":' * 5000,
        b"]]>",
        b"<a>" * 3000,
        b"<!DOCTYPE a>",
        b"&#0;",
        b"&#xD800;",
        b"&x;",
    ),
    *(b"utf-32", b"idna", b"shift_jis", b"bogus", b"../../", b"/etc/", b"x" * 140_000, b"PK\x03\x04", b"\x1f\x8b"),
)
WORDS = (
    b"\x00" * 4,
    b"\xff" * 4,
    b"\x7f\xff\xff\xff",
    b"\xff\xff\xff\x7f",
    b"\x80\x00\x00\x00",
    b"\xff\xff",
    b"\x00\x01",
)
PNG = b"\x89PNG\r\n\x1a\n"
Damage = Callable[[bytes, random.Random], bytes]


def cut_off(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def flip_bits(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 2, 8, 64))):
        if changed:
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def splice(data: bytes, rng: random.Random) -> bytes:
    """Put a piece of the file elsewhere, over what is there or between."""
    start, end = sorted(rng.randrange(len(data) + 1) for _ in range(2))
    at = rng.randrange(len(data) + 1)
    return data[:at] + data[start:end] + data[at + rng.choice((0, end - start)) :]


def fill_with_zeros(data: bytes, rng: random.Random) -> bytes:
    start, end = sorted(rng.randrange(len(data) + 1) for _ in range(2))
    return data[:start] + bytes(end - start) + data[end:]


def leave_out(data: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(data) + 1)
    return data[:start] + data[start + rng.choice((1, 4, 64, 1024)) :]


def append_garbage(data: bytes, rng: random.Random) -> bytes:
    return data + rng.randbytes(rng.choice((1, 16, 4096)))


def put_token(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + rng.choice(TOKENS) + data[at:]


def replace_word(data: bytes, rng: random.Random) -> bytes:
    """Overwrite a length, a count or a size in a binary format with an extreme one."""
    at, word = rng.randrange(len(data) + 1), rng.choice(WORDS)
    return data[:at] + word + data[at + len(word) :]


def replace_value(data: bytes, rng: random.Random) -> bytes:
    """Replace a number, a text or a field of a text format by a token."""
    values = list(re.finditer(rb'-?\d+(?:\.\d+)?|"[^"\n]{0,80}"|(?<=,)[^,\n]{1,80}(?=,)', data[:100_000]))
    if not values:
        return put_token(data, rng)
    match, token = rng.choice(values), rng.choice(TOKENS)
    # Within its quotes a token reaches what reads the value, not what reads the format.
    quoted = match[0].startswith(b'"') and b'"' not in token and rng.random() < 0.5
    return data[: match.start()] + (b'"' + token + b'"' if quoted else token) + data[match.end() :]


DAMAGES: tuple[Damage, ...] = (
    *(cut_off, flip_bits, splice, fill_with_zeros, leave_out, append_garbage, put_token, replace_word, replace_value),
)


def damaged(data: bytes, name: str, rng: random.Random) -> bytes:
    """Return `data`, the content of a file called `name`, damaged: outside, or inside of its compression."""
    inside = rng.random() < 0.6
    if inside and name.endswith((".gz", ".tgz")):
        return gzip.compress(_damaged(gzip.decompress(data), rng), 1, mtime=0)
    if inside and name.endswith(".zip"):
        return _damaged_member(data, rng)
    changed = _damaged(data, rng)
    # A checksum keeps damage from the decoder behind it.
    return _with_checksums(changed) if inside and data.startswith(PNG) else changed


def _damaged(data: bytes, rng: random.Random) -> bytes:
    # What a text format holds is seldom reached behind other damage.
    if data[:1] in (b"{", b"[", b"<") and rng.random() < 0.5:
        return replace_value(data, rng)
    for _ in range(rng.choice((1, 1, 2, 4))):
        data = rng.choice(DAMAGES)(data, rng)
    return data


def _damaged_member(data: bytes, rng: random.Random) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as new:
        chosen = rng.choice(old.namelist())
        for name in old.namelist():
            content = old.read(name)
            new.writestr(name, _damaged(content, rng) if name == chosen else content)
    return packed.getvalue()


def _with_checksums(data: bytes) -> bytes:
    """Return a PNG whose chunks, as far as they can be told apart, have the right checksums."""
    parts, at = [data[:8]], 8
    while at + 12 <= len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        body = data[at + 4 : at + 8 + length]
        parts += [data[at : at + 4], body, struct.pack(">I", zlib.crc32(body))]
        at += 12 + length
    return b"".join([*parts, data[at:]])

"""Reads a JSON file record by record, so that it is never completely in memory."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from diffrgen.errors import DataError, reason_of

BLOCK = 1 << 20
# Maximum size of a record with its key; the largest known have a few kB.
MAX_RECORD = 1 << 24
SPACE = " \t\r\n"


class _Reader:
    """Text of a file with the place reached in it; what lies before is given up block by block."""

    def __init__(self, file: TextIO) -> None:
        self._file, self._text, self._place, self._ended = file, "", 0, False
        self._decoder = json.JSONDecoder()

    def character(self) -> str:
        """Return the next character that is no white space, "" at the end, without passing it."""
        while True:
            while self._place < len(self._text) and self._text[self._place] in SPACE:
                self._place += 1
            if self._place < len(self._text) or not self._more():
                return self._text[self._place : self._place + 1]

    def skip(self, expected: str) -> None:
        """Pass `expected`; ValueError if something else comes."""
        found = self.character()
        if found != expected:
            raise ValueError(f"expected {expected!r}, got {found or 'the end of the file'!r}")
        self._place += 1

    def value(self) -> Any:
        """Return the next value and pass it; ValueError for a damaged one."""
        self.character()
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text, self._place)
            except ValueError:
                # Truncated at the end of the block, or damaged.
                if len(self._text) - self._place > MAX_RECORD or not self._more():
                    raise
                continue
            # A number at the end of the block may continue in the next one.
            if end == len(self._text) and self._more():
                continue
            self._place = end
            return value

    def _more(self) -> bool:
        block = "" if self._ended else self._file.read(BLOCK)
        self._ended = not block
        self._text, self._place = self._text[self._place :] + block, 0
        return bool(block)


def json_members(path: Path) -> Iterator[tuple[str, Any]]:
    """Yield each key and value of the object that the JSON file `path` holds, a key that is there twice both times.

    Memory: one value. Raises DataError for a file that cannot be read, is no object or is damaged, and for a value of more
    than 16 MiB.
    """
    try:
        with path.open(encoding="utf-8-sig") as file:
            reader = _Reader(file)
            reader.skip("{")
            more = reader.character() != "}"
            while more:
                key = reader.value()
                if not isinstance(key, str):
                    raise ValueError(f"expected a key, got {key!r:.40}")
                reader.skip(":")
                yield key, reader.value()
                more = reader.character() == ","
                if more:
                    reader.skip(",")
            reader.skip("}")
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: expected a JSON object of records, cannot read on: {reason_of(error)}") from error

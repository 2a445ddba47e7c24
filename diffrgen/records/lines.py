"""Lines and rows of text files, cut where the formats cut them: at a line feed, with or without a carriage return."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from diffrgen.errors import DataError

if TYPE_CHECKING:
    from _csv import Reader

DELIMITERS = {".csv": ",", ".tsv": "\t"}


def text_lines(text: str) -> list[str]:
    """Return the lines of `text` without their ends, which are \\n or \\r\\n and nothing else.

    NOTE: `str.splitlines` also cuts at U+2028, U+2029, U+0085 and five others, which may stand in a JSON string.

    >>> text_lines("a\\u2028b\\r\\nc")
    ['a\\u2028b', 'c']
    """
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    return lines if lines[-1] else lines[:-1]


def first_row(path: Path, text: str) -> list[str]:
    """Return the fields of the first row of `text`, none where there is no row; DataError as in `delimited_rows`."""
    rows = _reader(path, text)
    try:
        return next(rows, [])
    except csv.Error as error:
        raise _malformed(path, rows.line_num, error) from error


def delimited_rows(
    path: Path, text: str, *, header: Sequence[str] | None = None
) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the line on which each row of `text` ends, and its fields by column; blank lines are skipped.

    header: names of the columns of a text without a header; default: the first row. The delimiter follows from the suffix of
    `path`: a comma, or a tab for .tsv. Line ends within quotes stay.

    Raises:
        DataError: the header holds a column twice, a row has more or fewer fields than the header, or a quote is not
            closed; the message names the line.
    """
    rows = _reader(path, text)
    try:
        header = next(rows, []) if header is None else header
        twice = next((name for name in header if header.count(name) > 1), None)
        if twice is not None:
            raise DataError(f"{path}, line {rows.line_num}: expected each column once, got {twice!r} more than once")
        for row in rows:
            if not row:
                continue
            if len(row) != len(header):
                raise DataError(
                    f"{path}, line {rows.line_num}: expected {len(header)} fields as in the header, got {len(row)}; "
                    "put a text that holds the delimiter or a line break between double quotes"
                )
            yield rows.line_num, dict(zip(header, row, strict=True))
    except csv.Error as error:
        raise _malformed(path, rows.line_num, error) from error


def _reader(path: Path, text: str) -> Reader:
    return csv.reader(io.StringIO(text, newline="\n"), delimiter=DELIMITERS[path.suffix.lower()], strict=True)


def _malformed(path: Path, line: int, error: csv.Error) -> DataError:
    return DataError(f"{path}, line {line}: expected rows of {path.suffix}, a line each, got one with {error}")

"""A CSV file, plain or gzipped, read row by row with the columns that are needed."""

from __future__ import annotations

import csv
import gzip
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TextIO

from diffrgen.errors import DataError
from diffrgen.records.ids import id_text

# The longest line of MIMIC-CXR's tables has 300 characters, the longest report of IU X-Ray's 5,000.
MAX_LINE = 1_000_000
READ_ERRORS = (OSError, EOFError, zlib.error, UnicodeDecodeError, csv.Error)


def read_table(
    path: Path,
    columns: Sequence[str],
    *,
    optional: Sequence[str] = (),
    aliases: Mapping[str, str] | None = None,
    ids: Collection[str] = (),
) -> Iterator[tuple[str, ...]]:
    """Yield the fields of `columns` and of `optional`, stripped, for each row of the CSV file `path`.

    Column names are compared without case; `aliases` maps another name of a column to that in `columns`. A column of
    `optional` that is not there gives "".
    ids: columns of integers, which a table program may have written as floats: 50414267.0 gives 50414267.
    Memory: one row. DataError names the file, and the line where one is damaged or has too few fields.
    """
    line = 0
    try:
        with _opened(path) as file:
            rows = csv.reader(_lines(path, file))
            places = _places(path, next(rows, []), columns, optional, aliases or {})
            needed = max(place for place in places if place is not None) + 1
            fields = [(place, column in ids) for place, column in zip(places, (*columns, *optional), strict=True)]
            for row in rows:
                line = rows.line_num
                if not row:
                    continue
                if len(row) < needed:
                    raise DataError(f"{path}: line {line}: expected at least {needed} fields, got {len(row)}")
                yield tuple([_field(row, place, whole) for place, whole in fields])
    except READ_ERRORS as error:
        raise DataError(f"{path}: expected a CSV file, could not read on after line {line}: {error}") from error


def _field(row: list[str], place: int | None, whole: bool) -> str:
    if place is None:
        return ""
    text = row[place].strip()
    return id_text(text) or "" if whole else text


def _opened(path: Path) -> TextIO:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig", newline="")
    return path.open(encoding="utf-8-sig", newline="")


def _lines(path: Path, file: TextIO) -> Iterator[str]:
    """Yield the lines of `file`; one without end, such as a small gzip file can hold, is rejected."""
    while line := file.readline(MAX_LINE):
        if len(line) == MAX_LINE:
            raise DataError(f"{path}: expected lines of less than {MAX_LINE:,} characters, got a longer one")
        yield line


def _places(
    path: Path, header: list[str], columns: Sequence[str], optional: Sequence[str], aliases: Mapping[str, str]
) -> list[int | None]:
    """Return the position of each of `columns` and `optional` in `header`; None for an optional one that is not there."""
    lowered = [name.strip().lower() for name in header]
    names = [aliases.get(name, name) for name in lowered]
    missing = [column for column in columns if column.lower() not in names]
    if missing:
        raise DataError(
            f"{path}: needed the column(s) {', '.join(missing)}, got: {', '.join(header)[:300] or 'an empty file'}"
        )
    return [names.index(column.lower()) if column.lower() in names else None for column in (*columns, *optional)]

"""A table of the views of a data set's images, for annotation files that do not name them."""

from __future__ import annotations

import csv
from pathlib import Path

from diffrgen.errors import DataError, reason_of
from diffrgen.records.views import ViewKind, view_kind

PATHS = ("path", "filename", "image_path")
VIEWS = ("view", "projection", "viewposition")
INDEX_SUFFIX = "_index.csv"


def index_beside(images: Path) -> Path | None:
    """Return the view index that belongs to the folder `images` by its name, FOLDER_index.csv; None if there is none."""
    path = images.absolute()
    index = path.with_name(f"{path.name}{INDEX_SUFFIX}")
    return index if index.is_file() else None


def read_view_index(path: Path) -> dict[str, ViewKind]:
    """Return the kind of view of each image that the CSV file `path` lists, by its path below the images folder.

    A row is an image: its path in a column `path`, `filename` or `image_path`, its view (see `view_kind`) in a column
    `view`, `projection` or `ViewPosition`; names of columns in any case. A row without a path is passed over.

    Raises DataError for a file that cannot be read or has no such columns, and for an image with two kinds of view.
    """
    kinds: dict[str, ViewKind] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.reader(file)
            header = [name.strip().lower() for name in next(rows, [])]
            place, view = (_column(path, header, names) for names in (PATHS, VIEWS))
            for row in rows:
                if not row:
                    continue
                if len(row) <= max(place, view):
                    raise DataError(f"{path}: line {rows.line_num}: expected {len(header)} fields, got {len(row)}")
                image, kind = row[place].strip(), view_kind(row[view])
                if image and kinds.setdefault(image, kind) != kind:
                    raise DataError(f"{path}: image {image!r}: expected one view, got {kinds[image]} and {kind}")
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: expected a CSV file of images and their views, got: {reason_of(error)}") from error
    return kinds


def _column(path: Path, header: list[str], names: tuple[str, ...]) -> int:
    found = next((header.index(name) for name in names if name in header), None)
    if found is None:
        got = ", ".join(header)[:300] or "an empty file"
        raise DataError(f"{path}: expected a column {' or '.join(names)}, got: {got}")
    return found

"""Writing annotation.json and summary.json: record by record, all or nothing, never over other content."""

from __future__ import annotations

import filecmp
import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from diffrgen.errors import DataError
from diffrgen.preparation.summary import Summary
from diffrgen.records import SPLITS, Split
from diffrgen.records.location import path_fault

ANNOTATION, SUMMARY = "annotation.json", "summary.json"


class AnnotationWriter:
    """Writes `{"train": [...], "val": [...], "test": [...]}`, a record a line, beside the place it is meant for.

    Records come split by split in the order train, val, test, so that none is held in memory. `finish` puts the
    files in their place; leaving the block without it leaves the folder as it was.
    """

    def __init__(self, folder: Path, *, overwrite: bool) -> None:
        self.path = folder / ANNOTATION
        self._overwrite = overwrite
        self._partial = [folder / f"{name}.{os.getpid()}.tmp" for name in (ANNOTATION, SUMMARY)]
        self._splits: list[Split] = []
        self._file: TextIO

    def __enter__(self) -> AnnotationWriter:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._partial[0].open("w", encoding="utf-8")
        except OSError as error:
            raise DataError(f"cannot write to the folder {self.path.parent}: {error.strerror}") from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        for path in self._partial:
            path.unlink(missing_ok=True)

    def add(self, split: Split, record: Mapping[str, Any]) -> None:
        """Write one record; `split` may not come before that of the record before.

        DataError for an image path that leaves the images folder.
        """
        paths = record["image_path"]
        fault = next(filter(None, map(path_fault, [paths] if isinstance(paths, str) else paths)), None)
        if fault is not None:
            raise DataError(f"record {record['id']!r} for {self.path}: {fault}")
        first = self._open_splits(split)
        self._file.write("\n " if first else ",\n ")
        self._file.write(json.dumps(record, ensure_ascii=False))

    def finish(self, summary: Summary) -> None:
        """Put annotation.json and summary.json in their place.

        DataError where nothing was kept, and where an annotation.json of other content is there and `overwrite` is
        off. A summary of other content is replaced: it follows from the annotation.
        """
        if not summary.entries:
            raise DataError(f"nothing is left to write to {self.path}:\n{summary.to_text()}")
        self._open_splits(SPLITS[-1])
        self._file.write("\n]}\n")
        self._file.close()
        self._partial[1].write_text(json.dumps(summary.to_dict(), indent=1) + "\n", encoding="utf-8")
        places = [self.path, self.path.with_name(SUMMARY)]
        if self.path.exists() and not self._overwrite and not _same(self._partial[0], self.path):
            raise DataError(
                f"{self.path}: needed no file or one of the same content, got another one; choose another folder or "
                "replace it with --overwrite"
            )
        for made, place in zip(self._partial, places, strict=True):
            os.replace(made, place)

    def _open_splits(self, split: Split) -> bool:
        """Write the keys up to `split`; return whether no record of it was written yet."""
        if split in self._splits:
            if split != self._splits[-1]:
                raise ValueError(f"expected a record of {self._splits[-1]} or later, got one of {split}")
            return False
        while split not in self._splits:
            opened = SPLITS[len(self._splits)]
            self._file.write(f'{{"{opened}": [' if not self._splits else f'\n], "{opened}": [')
            self._splits.append(opened)
        return True


def _same(made: Path, place: Path) -> bool:
    return place.is_file() and filecmp.cmp(made, place, shallow=False)

"""Writes annotation.json and summary.json: record by record, all or nothing, never over other content."""

from __future__ import annotations

import filecmp
import json
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from diffrgen.errors import DataError
from diffrgen.preparation.summary import Summary
from diffrgen.records import SPLITS, Split
from diffrgen.records.location import path_fault

ANNOTATION, SUMMARY = "annotation.json", "summary.json"


class AnnotationWriter:
    """Writes `{"train": [...], "val": [...], "test": [...]}`, one record per line, under a temporary name first.

    Records come in any order; each split's are written to a separate file, so that none is held in memory. `finish`
    puts the files in their place; leaving the block without it leaves the folder as it was, or removes it if it is new.
    """

    def __init__(self, folder: Path, *, overwrite: bool) -> None:
        self.path = folder / ANNOTATION
        self._overwrite = overwrite
        self._partial = [folder / f"{name}.{os.getpid()}.tmp" for name in (ANNOTATION, SUMMARY)]
        self._parts = {split: folder / f"{ANNOTATION}.{split}.{os.getpid()}.tmp" for split in SPLITS}
        self._files: dict[Split, TextIO] = {}
        self._begun: set[Split] = set()
        self._new_folders: list[Path] = []

    def __enter__(self) -> AnnotationWriter:
        folder = self.path.parent
        self._new_folders = [each for each in (folder, *folder.parents) if not each.exists()]
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for split, path in self._parts.items():
                self._files[split] = path.open("w", encoding="utf-8")
        except OSError as error:
            raise DataError(f"cannot write to the folder {self.path.parent}: {error.strerror}") from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in self._files.values():
            file.close()
        for path in (*self._partial, *self._parts.values()):
            path.unlink(missing_ok=True)
        with suppress(OSError):  # one that is not empty stays
            for folder in self._new_folders:
                folder.rmdir()

    def add(self, split: Split, record: Mapping[str, Any]) -> None:
        """Write one record of `split`; DataError for an image path that leaves the images folder."""
        paths = record["image_path"]
        fault = next(filter(None, map(path_fault, [paths] if isinstance(paths, str) else paths)), None)
        if fault is not None:
            raise DataError(f"record {record['id']!r} for {self.path}: {fault}")
        file = self._files[split]
        file.write(",\n " if split in self._begun else "\n ")
        self._begun.add(split)
        file.write(json.dumps(record, ensure_ascii=False))

    def finish(self, summary: Summary) -> None:
        """Put annotation.json and summary.json in their place.

        DataError if nothing was kept, and where an annotation.json of other content is there and `overwrite` is
        off. A summary of other content is replaced: it follows from the annotation.
        """
        if not summary.entries:
            raise DataError(f"nothing is left to write to {self.path}:\n{summary.to_text()}")
        self._join()
        self._partial[1].write_text(json.dumps(summary.to_dict(), indent=1) + "\n", encoding="utf-8")
        places = [self.path, self.path.with_name(SUMMARY)]
        if self.path.exists() and not self._overwrite and not _same(self._partial[0], self.path):
            raise DataError(
                f"{self.path}: needed no file or one of the same content, got another one; choose another folder or "
                "replace it with --overwrite"
            )
        for made, place in zip(self._partial, places, strict=True):
            os.replace(made, place)

    def _join(self) -> None:
        """Write the file of all splits out of those of each."""
        with self._partial[0].open("wb") as whole:
            for split, path in self._parts.items():
                self._files[split].close()
                whole.write(f'{{"{split}": ['.encode() if split == SPLITS[0] else f'\n], "{split}": ['.encode())
                with path.open("rb") as part:
                    shutil.copyfileobj(part, whole)
            whole.write(b"\n]}\n")


def _same(made: Path, place: Path) -> bool:
    return place.is_file() and filecmp.cmp(made, place, shallow=False)

"""Finds damaged image files before a long training reaches them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tqdm import tqdm

from diffrgen.errors import DataError
from diffrgen.images.grey import probe_grey
from diffrgen.records import Study

READ_AT_ONCE = 8


def check_images(studies: Iterable[Study], *, workers: int | None = None, progress: bool = False) -> dict[Path, str]:
    """Open every image of `studies` and return the broken ones, path -> reason; empty if all can be read.

    Each file is read by `probe_grey`: checksums for PNG, a decode at 1/8 size for JPEG. workers: threads,
    default two a core and at most 8. `diffrgen.records.without_images` leaves the studies of broken images
    out; `raise_broken` stops with a message instead.
    """
    paths = list(dict.fromkeys(path for study in studies for path in study.images))
    threads = workers or min(READ_AT_ONCE, 2 * (os.cpu_count() or 1))
    with ThreadPoolExecutor(threads) as pool:
        faults = tqdm(pool.map(fault_of, paths), "images", len(paths), disable=not progress, leave=False)
        return {path: fault for path, fault in zip(paths, faults, strict=True) if fault is not None}


def raise_broken(studies: Iterable[Study], broken: dict[Path, str], *, source: Path) -> None:
    """Raise DataError naming `source` and the records of `studies` that hold an image of `broken`, if any."""
    lines = [
        f"{study.split} (id {study.id!r}): {broken[path]}"
        for study in studies
        for path in study.images
        if path in broken
    ]
    if lines:
        shown = "\n  ".join(lines[:5]) + (f"\n  and {len(lines) - 5} more" if len(lines) > 5 else "")
        raise DataError(
            f"{source}: {len(lines)} image(s) cannot be read; correct them or leave their records out with "
            f"--skip-broken:\n  {shown}"
        )


def fault_of(path: Path) -> str | None:
    """Return why the image file `path` cannot be read, None if it can."""
    try:
        probe_grey(path)
    except DataError as error:
        return str(error)
    return None

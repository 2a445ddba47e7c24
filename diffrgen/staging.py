"""Atomic writes of files and folders, safe against kills and power cuts, and their digests."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from diffrgen.errors import DataError

SUFFIX = ".partial"
SAMPLE = 2**15
DIGEST_PIECE = 2**22


def cache_root() -> Path:
    """Return the cache folder: DIFFRGEN_CACHE, else ~/.cache/diffrgen."""
    return Path(os.environ.get("DIFFRGEN_CACHE") or Path.home() / ".cache" / "diffrgen")


def partial_path(path: Path) -> Path:
    """Return the temporary name next to `path` under which its content is written."""
    return path.with_name(f".{path.name}{SUFFIX}")


def is_partial(path: Path) -> bool:
    """Return whether `path` is such a name."""
    return path.name.startswith(".") and path.name.endswith(SUFFIX)


def may_write(folder: Path) -> bool:
    """Return whether this process may make files in `folder`, by its permissions and those of its file system."""
    return os.access(folder, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids)


def check_absent(path: Path) -> None:
    """Raise DataError if the file `path` exists: what users have is not overwritten."""
    if path.exists():
        raise DataError(f"{path}: needed a new file, got one that exists; choose another")


def check_new_file(path: Path) -> None:
    """Raise DataError unless `path` can become a new file in an existing folder: for commands to call before their work."""
    check_absent(path)
    if not path.parent.is_dir() or not may_write(path.parent):
        raise DataError(f"{path}: needed a folder that exists and may be written, got {path.parent}")


def replace_file(path: Path, content: bytes) -> None:
    """Write `content` to `path`; whoever reads it finds the earlier file or this one, never a part."""
    partial = partial_path(path)
    try:
        partial.write_bytes(content)
        _flush(partial)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    _flush(path.parent)


@contextmanager
def staged(folder: Path) -> Iterator[Path]:
    """Yield an empty folder next to `folder` to write to; its files move to `folder` if the block succeeds.

    A new `folder` appears in one step. In one that exists each file is replaced, never overwritten, so that whoever has
    an old file memory-mapped keeps it. When the block raises, `folder` stays as it was.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    stage = partial_path(folder)
    remove(stage)
    stage.mkdir()
    try:
        yield stage
        publish(stage, folder)
    finally:
        remove(stage)


def publish(stage: Path, folder: Path) -> None:
    """Move the files of `stage` to `folder`, a new one in one step; what has its final name is on the disk.

    Each file gets the mode that the umask gives any other: safetensors writes its own for nobody else to read.
    """
    mode = stage.stat().st_mode & 0o666
    for path in (stage, *stage.rglob("*")):
        if path.is_file():
            path.chmod(mode)
        _flush(path)
    if folder.exists():
        for file in sorted(stage.iterdir()):
            os.replace(file, folder / file.name)
        _flush(folder)
    else:
        os.rename(stage, folder)
        _flush(folder.parent)


def discard(folder: Path) -> None:
    """Remove `folder` if it exists; if interrupted, the complete folder or a temporary name remains."""
    # A name other than the one under which `staged` writes new contents.
    leaving = partial_path(folder.with_name(f"{folder.name}.old"))
    remove(leaving)
    if folder.exists():
        os.rename(folder, leaving)
        remove(leaving)


def remove(path: Path) -> None:
    """Remove a file or a folder where it exists."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def sampled_digest(path: Path) -> str:
    """Return a hash of the size of `path` and of its first, middle and last 32 KB; OSError if it cannot be read.

    Of compressed images no two have these alike, and a large collection need not be read as a whole.
    """
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        digest.update(size.to_bytes(8, "little"))
        for start in sorted({0, max(0, (size - SAMPLE) // 2), max(0, size - SAMPLE)}):
            file.seek(start)
            digest.update(file.read(SAMPLE))
    return digest.hexdigest()


def file_digest(path: Path) -> str:
    """Return the SHA-256 of the content of `path` in hexadecimal digits; OSError if it cannot be read."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(DIGEST_PIECE):
            digest.update(piece)
    return digest.hexdigest()


def _flush(path: Path) -> None:
    """Have the content of a file, or the names in a folder, on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

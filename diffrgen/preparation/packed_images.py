"""Images in the files that hosts pack them in: zip files, one zip file in parts, a compressed tar file in parts."""

from __future__ import annotations

import io
import os
import re
import tarfile
import zipfile
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import IO, cast

from tqdm import tqdm

from diffrgen.errors import DataError
from diffrgen.preparation.openi import TAR_ERRORS
from diffrgen.preparation.report_files import ZIP_ERRORS

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# 16-bit radiographs have about 20 MB; an archive member may claim any size.
MAX_IMAGE_BYTES = 500_000_000
BLOCK = 1 << 20
MISSING, DAMAGED, LARGE = "image missing in the packed files", "image damaged in the packed files", "image too large"
PART_NUMBER = re.compile(r"[0-9]+$")

ImageName = Callable[[str], str]
"""Gives the path that records have of an image for the name of its member."""


class JoinedParts(io.RawIOBase):
    """Files read one behind the other, as if they had been joined."""

    def __init__(self, parts: Sequence[Path]) -> None:
        super().__init__()
        self._parts = list(parts)
        ends = [0]
        for part in self._parts:
            ends.append(ends[-1] + part.stat().st_size)
        self._starts, self._size, self._place = ends[:-1], ends[-1], 0
        self._open: tuple[int, IO[bytes]] | None = None

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Go to `offset` and return the place."""
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._size}[whence]
        self._place = max(0, start + offset)
        return self._place

    def tell(self) -> int:
        """Return the place."""
        return self._place

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]
        """Read into `buffer` and return how many bytes, 0 at the end."""
        if self._place >= self._size:
            return 0
        number = max(index for index, start in enumerate(self._starts) if start <= self._place)
        if self._open is None or self._open[0] != number:
            self.close_part()
            self._open = number, self._parts[number].open("rb")
        file = self._open[1]
        file.seek(self._place - self._starts[number])
        data = file.read(len(buffer))
        buffer[: len(data)] = data
        self._place += len(data)
        return len(data)

    def close_part(self) -> None:
        """Close the part that is open."""
        if self._open is not None:
            self._open[1].close()
            self._open = None

    def close(self) -> None:
        """Close the file."""
        self.close_part()
        super().close()


def numbered_parts(files: Sequence[Path]) -> list[Path]:
    """Return the parts of one file in the order of the numbers that their names end in.

    Raises:
        DataError: a number between two parts is missing, or is there twice.
    """
    numbers = {int(found[0]): file for file in files if (found := PART_NUMBER.search(file.name))}
    expected = range(min(numbers, default=0), min(numbers, default=0) + len(files))
    for number in expected:
        if number not in numbers:
            stem = PART_NUMBER.sub("", files[0].name)
            raise DataError(f"{files[0].parent}: needed every part of {stem}* once, got no part {number}; download it again")
    return [numbers[number] for number in expected]


class ZippedImages:
    """Images in zip files, each a sequence of parts; name: see `ImageName`."""

    def __init__(self, files: Sequence[Sequence[Path]], name: ImageName) -> None:
        self._places: dict[str, tuple[zipfile.ZipFile, zipfile.ZipInfo]] = {}
        for parts in files:
            archive = _opened_zip(parts)
            self._places |= {name(info.filename): (archive, info) for info in archive.infolist() if not info.is_dir()}

    def names(self) -> Collection[str]:
        """Return the images that the files hold."""
        return self._places.keys()

    def unpack(self, wanted: Collection[str], folder: Path, *, progress: bool) -> Iterator[tuple[str, str]]:
        """Write each image of `wanted` below `folder`; yield those that are not there or damaged, with the reason."""
        for name in tqdm(wanted, "unpacking", unit="image", disable=not progress, leave=False):
            archive, info = self._places.get(name, (None, None))
            if archive is None or info is None:
                yield name, MISSING
            elif info.file_size > MAX_IMAGE_BYTES:
                yield name, LARGE
            elif not _is_written(folder / name, info.file_size):
                try:
                    with archive.open(info) as member:
                        whole = _write(member, folder / name)
                except ZIP_ERRORS:
                    whole = False
                if not whole:
                    yield name, DAMAGED


class TarredImages:
    """Images in a zstandard-compressed tar file in parts, which is read once from its beginning to its end."""

    def __init__(self, parts: Sequence[Path], name: ImageName) -> None:
        self._parts, self._name = parts, name

    def names(self) -> None:
        """Return None: the answer requires reading the complete file."""
        return None

    def unpack(self, wanted: Collection[str], folder: Path, *, progress: bool) -> Iterator[tuple[str, str]]:
        """Write each image of `wanted` below `folder`; yield those that are not there or damaged, with the reason.

        Raises:
            DataError: the package zstandard is missing, or the file is damaged, so that what is behind cannot be read.
        """
        left = set(wanted)
        with tqdm(total=len(left), desc="unpacking", unit="image", disable=not progress, leave=False) as bar:
            try:
                for member, file in self._members():
                    name = self._name(member.name)
                    if name not in left:
                        continue
                    left.remove(name)
                    bar.update()
                    if member.size > MAX_IMAGE_BYTES:
                        yield name, LARGE
                    elif not (_is_written(folder / name, member.size) or _write(file, folder / name)):
                        yield name, DAMAGED
            except TAR_ERRORS as error:
                raise DataError(f"{self._parts[0]}: expected parts of a tar.zst file, cannot read on: {error}") from error
        yield from ((name, MISSING) for name in sorted(left))

    def _members(self) -> Iterator[tuple[tarfile.TarInfo, IO[bytes]]]:
        try:
            import zstandard
        except ImportError as error:
            raise DataError('needed the package zstandard to unpack the images: pip install "diffrgen[zstd]"') from error
        try:
            with (
                io.BufferedReader(JoinedParts(self._parts), BLOCK) as joined,
                zstandard.ZstdDecompressor().stream_reader(joined) as plain,
                tarfile.open(fileobj=cast(IO[bytes], plain), mode="r|") as archive,
            ):
                for member in archive:
                    file = archive.extractfile(member) if member.isfile() else None
                    if file is not None:
                        yield member, file
        except zstandard.ZstdError as error:
            raise tarfile.ReadError(str(error)) from error


def _opened_zip(parts: Sequence[Path]) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(cast(IO[bytes], io.BufferedReader(JoinedParts(parts), BLOCK)))
    except ZIP_ERRORS as error:
        raise DataError(f"{parts[0]}: expected a zip file of images, cannot open it: {error}") from error


def _is_written(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def _write(member: IO[bytes], path: Path) -> bool:
    """Write a PNG from `member` to `path`, all or nothing; return whether it is one, other formats being let pass by suffix.

    Raises:
        DataError: the file cannot be written.
    """
    start = member.read(len(PNG_SIGNATURE))
    if path.suffix.lower() == ".png" and start != PNG_SIGNATURE:
        return False
    partial = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = partial.open("wb")
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error.strerror}") from error
    try:
        with file:
            file.write(start)
            while block := member.read(BLOCK):
                _store(file, block, path)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return True


def _store(file: IO[bytes], block: bytes, path: Path) -> None:
    """Write a block; a full disk is no damage of the member that is read."""
    try:
        file.write(block)
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error.strerror}") from error

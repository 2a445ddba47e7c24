"""MIMIC-CXR's reports, read one at a time from the zip file that PhysioNet ships or from the unpacked folder."""

from __future__ import annotations

import lzma
import re
import zipfile
import zlib
from pathlib import Path
from typing import Protocol

from diffrgen.errors import DataError
from diffrgen.preparation.archive import Archive

ZIP_NAMES = ("mimic-cxr-reports.zip",)
# MIMIC-CXR's reports have a few kB; a member of a small zip file may claim any size.
MAX_BYTES = 1_000_000
ZIP_ERRORS = (OSError, EOFError, RuntimeError, UnicodeDecodeError, zipfile.BadZipFile, zlib.error, lzma.LZMAError)
MEMBER = re.compile(r"(?P<before>.*?)p1\d/p\d+/s\d+\.txt")


class ReportFiles(Protocol):
    """Gives the report of a study."""

    path: Path

    def read(self, patient: str, study: str) -> str | None:
        """Return the report of `study` (numbers, without p and s); None if there is none."""
        ...


class ZippedReports:
    """Reports read out of mimic-cxr-reports.zip without unpacking it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._zip = zipfile.ZipFile(path)
        except ZIP_ERRORS as error:
            raise DataError(f"{path}: expected a zip file of reports, cannot open it: {error}") from error
        matches = (MEMBER.fullmatch(name) for name in self._zip.NameToInfo)
        first = next((match for match in matches if match), None)
        if first is None:
            shown = ", ".join(self._zip.namelist()[:3]) or "no file"
            raise DataError(f"{path}: expected reports at files/p10/p10000032/s50414267.txt, got {shown}")
        self._before = first["before"]

    def read(self, patient: str, study: str) -> str | None:
        """Return the report of `study`; DataError naming the member where it is damaged."""
        member = self._before + _report_path(patient, study)
        try:
            size = self._zip.getinfo(member).file_size
            _check_size(f"{self.path}: {member}", size)
            return self._zip.read(member).decode("utf-8", errors="replace")
        except KeyError:
            return None
        except ZIP_ERRORS as error:
            raise DataError(f"{self.path}: {member} cannot be read: {error}") from error


class UnpackedReports:
    """Reports read from files/p10/p10000032/s50414267.txt."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self, patient: str, study: str) -> str | None:
        """Return the report of `study`; DataError if its file cannot be read."""
        try:
            path = self.path / _report_path(patient, study)
            _check_size(str(path), path.stat().st_size)
            return path.read_text(encoding="utf-8", errors="replace")
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise DataError(f"{error.filename} cannot be read: {error.strerror}") from error


def open_reports(archive: Archive) -> ReportFiles:
    """Return the reports of `archive`, zipped before unpacked; DataError if there are none."""
    zipped = archive.find(ZIP_NAMES)
    if zipped is not None:
        return ZippedReports(zipped)
    folder = archive.patient_root(".txt")
    if folder is None:
        raise DataError(
            f"{archive.root}: needed MIMIC-CXR's reports, mimic-cxr-reports.zip or files/p10/p10000032/s50414267.txt, "
            "got neither; they come with MIMIC-CXR, not with MIMIC-CXR-JPG"
        )
    return UnpackedReports(folder)


def study_folder(patient: str, study: str) -> str:
    """Return where the images of a study lie below files/: p10/p10000032/s50414267."""
    return f"p{patient[:2]}/p{patient}/s{study}"


def _check_size(place: str, size: int) -> None:
    if size > MAX_BYTES:
        raise DataError(f"{place}: expected a report of at most {MAX_BYTES:,} bytes, got {size:,}")


def _report_path(patient: str, study: str) -> str:
    return f"{study_folder(patient, study)}.txt"

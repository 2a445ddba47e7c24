"""Open-i's release of IU X-Ray: one XML file a report, in NLMCXR_reports.tgz or unpacked (ecgen-radiology/*.xml)."""

from __future__ import annotations

import gzip
import tarfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, BinaryIO, cast
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from tqdm import tqdm

from diffrgen.errors import DataError
from diffrgen.preparation.archive import Archive
from diffrgen.preparation.iu_study import IuStudy, study_number
from diffrgen.preparation.views import ViewedImage
from diffrgen.records import SECTION_NAMES, Sections

TARBALLS = ("NLMCXR_reports.tgz", "NLMCXR_reports.tar.gz", "NLMCXR_reports.tar")
IMAGE_SUFFIX = ".png"
# Maximum size of a report; the largest of the 3,955 has 21 kB.
MAX_BYTES = 4_000_000
# ValueError and KeyError come from extended headers, which tarfile does not check.
TAR_ERRORS = (OSError, EOFError, zlib.error, tarfile.TarError, ValueError, KeyError)


def openi_source(archive: Archive) -> Path | None:
    """Return the tarball of reports in `archive`, else the folder of its first XML file, else None."""
    tarball = archive.find(TARBALLS)
    if tarball is not None:
        return tarball
    unpacked = archive.ending(".xml")
    return unpacked[0].parent if unpacked else None


def read_openi(source: Path, views: Mapping[str, str], *, progress: bool = False) -> list[IuStudy]:
    """Return the studies of the tarball or folder `source`, by number.

    views: the view of an image by its key (`image_key`); the XML does not contain it. DataError names the file (and
    the member of a tarball) that is no report, damaged, or declares entities, and a study that is there twice.
    """
    files = _members(source) if source.is_file() else _unpacked(source)
    studies: dict[str, IuStudy] = {}
    for place, content in tqdm(files, "reports", unit="file", disable=not progress, leave=False):
        study = parse_report(content, place, views)
        if study.number in studies:
            raise DataError(f"{place}: expected one report a study, got a second one of study {study.number}")
        studies[study.number] = study
    if not studies:
        raise DataError(f"{source}: expected Open-i's reports (*.xml), got none")
    return sorted(studies.values(), key=lambda study: int(study.number))


def parse_report(content: bytes, place: str, views: Mapping[str, str]) -> IuStudy:
    """Return the study of one XML report; DataError that begins with `place` where it is no such report."""
    root = _parse_xml(content, place)
    identifier = root.find("uId")
    number = None if identifier is None else study_number(identifier.get("id", ""))
    if root.tag != "eCitation" or number is None:
        raise DataError(f"{place}: expected Open-i's <eCitation> with <uId id='CXR1'/>, got <{root.tag}>")
    sections: dict[str, list[str]] = {}
    for element in root.iter("AbstractText"):
        text = " ".join("".join(element.itertext()).split())
        sections.setdefault(element.get("Label", ""), []).append(text)
    names = [name for image in root.iter("parentImage") if (name := image.get("id"))]
    images = (ViewedImage(f"{name}{IMAGE_SUFFIX}", views.get(image_key(name), "")) for name in names)
    texts = {name: " ".join(filter(None, sections.get(name.upper(), ()))) for name in SECTION_NAMES}
    return IuStudy(number, Sections(**texts), tuple(images))


def image_key(name: str) -> str:
    """Return what Open-i's and Kaggle's names of one image have in common.

    >>> image_key("CXR1_1_IM-0001-3001"), image_key("1_IM-0001-3001.dcm.png")
    ('1/IM-0001-3001', '1/IM-0001-3001')
    """
    before, _, after = name.partition("IM-")
    number = before.removeprefix("CXR").split("_")[0]
    return f"{number}/IM-{after.split('.')[0]}"


def _parse_xml(content: bytes, place: str) -> Element:
    """Parse without entities: a document type, which alone could declare them, is rejected."""
    builder = TreeBuilder()
    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data

    def refuse(*declaration: object) -> None:
        raise DataError(f"{place}: expected a report without a document type, got <!DOCTYPE {declaration[0]}>")

    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(content, True)
    except DataError:
        raise
    # LookupError and ValueError come from encodings that Python or its XML parser does not support.
    except (expat.ExpatError, LookupError, ValueError) as error:
        raise DataError(f"{place}: expected an XML report, got: {error}") from None
    return builder.close()


def _unpacked(folder: Path) -> Iterator[tuple[str, bytes]]:
    # macOS stores metadata under names such as ._1.xml on other file systems.
    for path in sorted(path for path in folder.glob("*.xml") if not path.name.startswith(".")):
        _check_size(str(path), path.stat().st_size)
        try:
            yield str(path), path.read_bytes()
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror}") from error


def _members(tarball: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the XML files of `tarball` out of memory; nothing is unpacked."""
    try:
        with (
            _decompressed(tarball) as file,
            tarfile.open(fileobj=cast(IO[bytes], BoundedReads(file)), mode="r:") as archive,
        ):
            for member in _xml_members(archive):
                place = f"{tarball}: {member.name}"
                _check_size(place, member.size)
                report = archive.extractfile(member)
                yield place, b"" if report is None else report.read()
    except DataError:
        raise
    except TAR_ERRORS as error:
        raise DataError(f"{tarball}: expected a tar file of reports, cannot read on: {error}") from error


class BoundedReads:
    """A file for `tarfile` that limits reads, because headers may claim any size."""

    def __init__(self, file: BinaryIO | gzip.GzipFile) -> None:
        self._file = file
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int) -> bytes:
        """Return the next `size` bytes; tarfile.ReadError above `MAX_BYTES` and a block."""
        if size > MAX_BYTES + tarfile.BLOCKSIZE:
            raise tarfile.ReadError(f"a header or report of {size:,} bytes, over the limit of {MAX_BYTES:,}")
        return self._file.read(size)


def _decompressed(tarball: Path) -> BinaryIO | gzip.GzipFile:
    with tarball.open("rb") as file:
        zipped = file.read(2) == b"\x1f\x8b"
    return gzip.open(tarball) if zipped else tarball.open("rb")


def _xml_members(archive: Iterable[tarfile.TarInfo]) -> Iterator[tarfile.TarInfo]:
    for member in archive:
        name = member.name.rpartition("/")[2]
        if member.isfile() and name.endswith(".xml") and not name.startswith("."):
            yield member


def _check_size(place: str, size: int) -> None:
    if size > MAX_BYTES:
        raise DataError(f"{place}: expected a report of at most {MAX_BYTES:,} bytes, got {size:,}")

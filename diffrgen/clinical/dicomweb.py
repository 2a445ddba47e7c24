"""Client of a DICOMweb server (PS3.18): lists studies, fetches their images, and stores a report."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from email.message import Message
from types import TracebackType

import httpx

from diffrgen.clinical.source import MODALITIES
from diffrgen.errors import DataError

STUDY, SERIES, INSTANCE = "0020000D", "0020000E", "00080018"
DICOM, JSON = "application/dicom", "application/dicom+json"
# An uncompressed radiograph of 43 x 43 cm at 0.1 mm has 37 MB.
MOST_BYTES = 200_000_000
SECONDS = 60.0


@dataclass(frozen=True, order=True)
class StoredImage:
    """The address of an image within its study: the UIDs of its series and of itself."""

    series: str
    instance: str


class DicomWeb:
    """Queries a DICOMweb server by QIDO-RS, WADO-RS and STOW-RS.

    url: of the service, such as Orthanc's http://127.0.0.1:8042/dicom-web; authorization: the value of that header.

    Raises:
        DataError: the server cannot be reached, refuses, or answers what DICOMweb does not allow. No UID is quoted.
    """

    def __init__(self, url: str, authorization: str | None = None) -> None:
        headers = {} if authorization is None else {"authorization": authorization}
        self._client = httpx.Client(base_url=url.rstrip("/") + "/", timeout=SECONDS, headers=headers)

    def __enter__(self) -> DicomWeb:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._client.close()

    def studies(self, since: str) -> list[str]:
        """Return the UIDs of studies with radiographs since the day `since`, YYYYMMDD, in order, without repeats."""
        found: dict[str, None] = {}
        for modality in MODALITIES:
            query = {"ModalitiesInStudy": modality, "StudyDate": f"{since}-"}
            found |= dict.fromkeys(self._uids("studies", STUDY, query))
        return list(found)

    def images(self, study: str) -> list[StoredImage]:
        """Return the radiographs of a study, in the order of their UIDs."""
        found = []
        for modality in MODALITIES:
            for series in self._uids(f"studies/{study}/series", SERIES, {"Modality": modality}):
                instances = self._uids(f"studies/{study}/series/{series}/instances", INSTANCE, {})
                found += [StoredImage(series, instance) for instance in instances]
        return sorted(set(found))

    def fetch(self, study: str, image: StoredImage) -> bytes:
        """Return the DICOM file of an image."""
        path = f"studies/{study}/series/{image.series}/instances/{image.instance}"
        headers = {"accept": f'multipart/related; type="{DICOM}"; transfer-syntax=*'}
        try:
            with self._client.stream("GET", path, headers=headers) as answer:
                _check(answer)
                body = bytearray()
                for part in answer.iter_bytes():
                    body += part
                    if len(body) > MOST_BYTES:
                        raise DataError(f"the archive sent an image of more than {MOST_BYTES} bytes")
        except httpx.HTTPError as error:
            raise _unreachable(error) from error
        return first_part(bytes(body), answer.headers.get("content-type", ""))

    def store(self, file: bytes) -> None:
        """Store a DICOM file in the archive."""
        boundary = secrets.token_hex(16)
        head, end = f"--{boundary}\r\nContent-Type: {DICOM}\r\n\r\n", f"\r\n--{boundary}--\r\n"
        body = head.encode() + file + end.encode()
        headers = {"content-type": f'multipart/related; type="{DICOM}"; boundary={boundary}', "accept": JSON}
        try:
            _check(self._client.post("studies", content=body, headers=headers))
        except httpx.HTTPError as error:
            raise _unreachable(error) from error

    def _uids(self, path: str, tag: str, query: dict[str, str]) -> list[str]:
        try:
            answer = self._client.get(path, params=query, headers={"accept": JSON})
        except httpx.HTTPError as error:
            raise _unreachable(error) from error
        _check(answer)
        try:
            entries = [] if answer.status_code == httpx.codes.NO_CONTENT else answer.json()
            uids = [str(entry[tag]["Value"][0]) for entry in entries]
        except (ValueError, TypeError, KeyError, IndexError) as error:
            raise DataError(f"expected DICOM JSON with the tag {tag} from the archive, got something else") from error
        # UIDs become parts of URLs.
        if any(not uid or set(uid) - set("0123456789.") for uid in uids):
            raise DataError(f"expected UIDs as the tag {tag} from the archive, got something else")
        return uids


def first_part(body: bytes, content_type: str) -> bytes:
    """Return the content of the first part of a multipart/related body, or the body of another type."""
    head = Message()
    head["content-type"] = content_type
    if head.get_content_type() == DICOM:
        return body
    boundary = head.get_boundary()
    if head.get_content_type() != "multipart/related" or not boundary:
        raise DataError(f"expected multipart/related or {DICOM} from the archive, got {head.get_content_type()}")
    # Each delimiter begins a line; the first one may begin the body.
    parts = (b"\r\n" + body).split(b"\r\n--" + boundary.encode())
    _, blank, content = parts[1].partition(b"\r\n\r\n") if len(parts) > 2 else (b"", b"", b"")
    if not blank:
        raise DataError("expected a part with a DICOM file from the archive, got none")
    return content


def _check(answer: httpx.Response) -> None:
    if not answer.is_success:
        raise DataError(f"the archive answered {answer.status_code} {answer.reason_phrase}")


def _unreachable(error: httpx.HTTPError) -> DataError:
    return DataError(f"the archive cannot be reached ({type(error).__name__})")

"""`python -m diffrgen.clinical.poll ARCHIVE OUTPUT`: draft reports of new studies in a DICOMweb server, as structured reports."""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import tyro

from diffrgen.clinical.dicomweb import DicomWeb, StoredImage
from diffrgen.clinical.draft import DraftReport
from diffrgen.clinical.origin import ReportOrigin
from diffrgen.clinical.source import LATERAL, SourceImage, read_study
from diffrgen.clinical.structured_report import basic_text_sr
from diffrgen.command import run_command
from diffrgen.errors import DataError
from diffrgen.ranges import Positive, Share, check_fields
from diffrgen.reporting.confidence import NotMentioned
from diffrgen.text import printable

TOKEN, ARCHIVE_AUTHORIZATION = "DIFFRGEN_API_TOKEN", "DICOMWEB_AUTHORIZATION"
STATE = "reported.txt"
# A report takes seconds, and may wait for others.
SECONDS = 600.0
# Statuses of studies that the service will never report, so that a retry is useless.
FINAL = frozenset({400, 413, 422})


@dataclass(frozen=True)
class PollOptions:
    """Report new radiographs of a DICOMweb server, such as Orthanc, with a running service. Research use only, not for
    diagnosis.

    Each study gets a draft report as a DICOM structured report, once two polls list the same images. The token of the
    service is read from DIFFRGEN_API_TOKEN; the Authorization header of the archive, if required, from
    DICOMWEB_AUTHORIZATION.
    """

    archive: tyro.conf.Positional[str]
    """Address of the DICOMweb service, such as http://127.0.0.1:8042/dicom-web."""
    output: tyro.conf.Positional[Path]
    """Folder for the structured reports and for reported.txt, which lists finished studies by digest."""
    service: str = "http://127.0.0.1:7860"
    """Address of `python -m diffrgen.serve RUN --api`."""
    store: bool = False
    """Also store each report in the archive."""
    since: str | None = None
    """First day of the studies, YYYYMMDD; default: today."""
    seconds: Positive = 30.0
    """Time between two polls."""
    abstain: Share | None = None
    """Mark sentences with a probability below this value (0 to 1) as doubtful. Requires a calibrated run."""
    once: bool = False
    """Process the current studies and exit; images that arrive later are missed."""

    def __post_init__(self) -> None:
        check_fields(self, "--")


class RefusedStudyError(DataError):
    """The study will never get a report, so a retry is useless."""


class Service:
    """A running `diffrgen.serve --api`."""

    def __init__(self, url: str, token: str) -> None:
        headers = {"authorization": f"Bearer {token}"}
        self._client = httpx.Client(base_url=url.rstrip("/") + "/", timeout=SECONDS, headers=headers)

    def most_images(self) -> int:
        """Return how many images of a study its run takes."""
        try:
            schema = self._client.get("openapi.json").raise_for_status().json()
            body = schema["paths"]["/v1/reports"]["post"]["requestBody"]["content"]["multipart/form-data"]
            return int(body["schema"]["properties"]["images"]["maxItems"])
        except httpx.HTTPError as error:
            raise DataError(f"the service cannot be reached ({type(error).__name__})") from error
        except (ValueError, KeyError, TypeError) as error:
            raise DataError("expected the API of diffrgen.serve --api, got another service") from error

    def report(self, files: Sequence[Path]) -> dict[str, Any]:
        """Return the answer for the images of a study."""
        parts = [("images", ("image.dcm", file.read_bytes())) for file in files]
        try:
            answer = self._client.post("v1/reports", files=parts)
            content = answer.json()
        except (httpx.HTTPError, ValueError) as error:
            raise DataError(f"the service cannot be reached ({type(error).__name__})") from error
        if answer.is_success:
            return content
        kind = RefusedStudyError if answer.status_code in FINAL else DataError
        raise kind(f"the service answered {answer.status_code}: {content.get('error')} {content.get('got')}")


class Poller:
    """Looks for new studies and reports each once.

    Raises DataError if the archive cannot be asked; what is wrong with one study is printed, and the others go on.
    """

    def __init__(self, options: PollOptions, archive: DicomWeb, service: Service) -> None:
        self._options, self._archive, self._service = options, archive, service
        options.output.mkdir(parents=True, exist_ok=True)
        self._state = options.output / STATE
        self._done = set(self._state.read_text().split()) if self._state.exists() else set()
        self._seen: dict[str, list[StoredImage]] = {}
        self._most = service.most_images()

    def poll(self) -> int:
        """Report new, complete studies; return the number of studies finished, including rejected ones."""
        since = self._options.since or f"{datetime.now():%Y%m%d}"
        count = 0
        for study in self._archive.studies(since):
            name = hashlib.sha256(study.encode()).hexdigest()
            if name in self._done:
                continue
            images = self._archive.images(study)
            settled = self._options.once or self._seen.get(study) == images
            self._seen[study] = images
            if images and settled:
                count += self._tried(study, name, images)
        return count

    def _tried(self, study: str, name: str, images: Sequence[StoredImage]) -> bool:
        """Report a study, or log the reason under its digest; a rejected study is not retried."""
        try:
            self._report(study, images)
        except RefusedStudyError as error:
            print(f"study {name[:12]}: no report: {printable(str(error))}", file=sys.stderr, flush=True)
        except DataError as error:
            print(f"study {name[:12]}: tried again later: {printable(str(error))}", file=sys.stderr, flush=True)
            return False
        self._done.add(name)
        with self._state.open("a") as state:
            state.write(f"{name}\n")
        return True

    def _report(self, study: str, images: Sequence[StoredImage]) -> None:
        with tempfile.TemporaryDirectory(prefix="diffrgen-poll-") as folder:
            files = []
            for number, image in enumerate(images):
                file = Path(folder, f"{number}.dcm")
                file.write_bytes(self._archive.fetch(study, image))
                files.append(file)
            try:
                sources = read_study(files)
            except DataError as error:
                raise RefusedStudyError(str(error).replace(folder, "")) from None
            chosen = sorted(sources, key=_is_lateral)[: self._most]
            answer = self._service.report([source.file for source in chosen])
        self._write(chosen, answer)

    def _write(self, sources: Sequence[SourceImage], answer: dict[str, Any]) -> None:
        origin = ReportOrigin(str(answer["model"]).removeprefix("diffrgen "), str(answer["run"]))
        report = _draft(answer, self._options.abstain)
        document = basic_text_sr(sources, report, origin, now=datetime.now().astimezone())
        stream = BytesIO()
        document.save_as(stream, enforce_file_format=True)
        if self._options.store:
            self._archive.store(stream.getvalue())
        (self._options.output / f"{document.SOPInstanceUID}.dcm").write_bytes(stream.getvalue())
        for warning in answer["warnings"]:
            print(f"warning: {printable(str(warning))}", file=sys.stderr, flush=True)


def _draft(answer: dict[str, Any], abstain: float | None) -> DraftReport:
    """The report in an answer of the service."""
    sentences = answer["sentences"]
    left_out = [NotMentioned(str(one["finding"]), float(one["probability"])) for one in answer.get("not_mentioned") or ()]
    return DraftReport.rated(
        [str(one["text"]) for one in sentences],
        [one.get("confidence") for one in sentences],
        left_out,
        sections=[one.get("section") for one in sentences],
        abstain=abstain,
    )


def _is_lateral(source: SourceImage) -> bool:
    return source.text("ViewPosition").upper() in LATERAL


def main(arguments: Sequence[str] | None = None) -> int:
    """Poll until Ctrl-C, or once; return the exit status."""
    options = tyro.cli(PollOptions, args=arguments, prog="python -m diffrgen.clinical.poll")
    token = os.environ.get(TOKEN)
    if not token:
        raise DataError(f"needed the token of the service in the environment variable {TOKEN}, got none")
    with DicomWeb(options.archive, os.environ.get(ARCHIVE_AUTHORIZATION)) as archive:
        poller = Poller(options, archive, Service(options.service, token))
        while True:
            try:
                print(f"{poller.poll()} studies done", flush=True)
            except DataError as error:
                if options.once:
                    raise
                print(f"error: {error}; tried again in {options.seconds:g} s", file=sys.stderr, flush=True)
            if options.once:
                return 0
            time.sleep(options.seconds)


if __name__ == "__main__":
    sys.exit(run_command(main))

"""The address that a corrected report is sent to with its DICOM images, to come back as a DICOM SR or FHIR draft."""

from __future__ import annotations

import asyncio
import json
from datetime import datetime
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Annotated, Literal

from fastapi import Request
from fastapi.responses import PlainTextResponse, Response
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException

from diffrgen.clinical.draft import DraftReport, DraftSentence
from diffrgen.clinical.fhir import diagnostic_report
from diffrgen.clinical.origin import ReportOrigin, run_origin
from diffrgen.clinical.source import SourceImage, check_study
from diffrgen.clinical.structured_report import basic_text_sr
from diffrgen.errors import DataError
from diffrgen.page.words import UNLIKELY, sure_words
from diffrgen.records import MAX_VIEWS
from diffrgen.reporting.confidence import NotMentioned
from diffrgen.serving.body import DisconnectedError, TooLongError, TooSlowError, body_parts
from diffrgen.serving.clients import Turns, client_of
from diffrgen.serving.image_reader import ImageReader
from diffrgen.serving.memory_parser import MemoryParser
from diffrgen.serving.options import UploadLimits
from diffrgen.serving.refusals import too_many_bytes
from diffrgen.text import printable

# Maximum characters of a sentence and sentences of a report; the longest reports have about thirty.
MOST_CHARACTERS, MOST_SENTENCES = 2_000, 100
TOO_LONG = f"An edit is too long: a sentence may have {MOST_CHARACTERS} characters, a report {MOST_SENTENCES} sentences."
OVERHEAD = 1_000_000
RECEIVED_AT_ONCE, WAITING = 4, 16
TYPES = {"dicom-sr": "application/dicom", "fhir": "application/fhir+json"}


def _clean(text: str) -> str:
    """The text in one line, without what neither XML nor DICOM can hold."""
    return printable(" ".join(text.split()))


Probability = Annotated[float, Field(ge=0, le=1)]
Text = Annotated[str, Field(max_length=MOST_CHARACTERS), AfterValidator(_clean), Field(min_length=1)]


class EditedSentence(BaseModel):
    """A sentence that a visitor has kept: as it stands, as it was generated where that is another, how probable that is.

    section: of a run that writes an impression beside the findings.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    text: Text
    generated: Text | None = None
    probability: Probability | None = None
    section: Literal["findings", "impression"] | None = None


class LeftOut(BaseModel):
    """A finding that the report does not mention."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    finding: Annotated[Text, Field(max_length=100)]
    probability: Probability


class EditedReport(BaseModel):
    """A report as edited by a visitor, and the requested format. struck: number of sentences removed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal["dicom-sr", "fhir"]
    sentences: Annotated[tuple[EditedSentence, ...], Field(max_length=MOST_SENTENCES)]
    not_mentioned: Annotated[tuple[LeftOut, ...], Field(max_length=MOST_SENTENCES)] = ()
    struck: Annotated[int, Field(ge=0, le=MOST_SENTENCES)] = 0

    def draft(self) -> DraftReport:
        """Return the report as it leaves; what the page calls unlikely is doubtful there."""
        sentences = [
            DraftSentence(each.text, each.generated, each.probability, _unlikely(each.probability), each.section)
            for each in self.sentences
        ]
        left_out = tuple(NotMentioned(each.finding, each.probability) for each in self.not_mentioned)
        return DraftReport(tuple(sentences), left_out, self.struck)


def _unlikely(probability: float | None) -> bool:
    return probability is not None and sure_words(probability) == UNLIKELY


class Exporter:
    """Makes drafts of corrected reports. Nothing is kept: the images come again with each request."""

    def __init__(self, reader: ImageReader, limits: UploadLimits, run: Path) -> None:
        self._reader, self._limits, self._run = reader, limits, run
        self._receiving = Turns(RECEIVED_AT_ONCE, per_client=1, waiting=WAITING)

    async def export(self, request: Request) -> Response:
        """Return the file, or the reason why there is none."""
        if request.headers.get("sec-fetch-site", "same-origin") != "same-origin":
            return PlainTextResponse("Reports are taken from this service's own page only.", 403)
        try:
            async with self._receiving.turn(client_of(request.scope)):
                report, images = await self._form(request)
                names = [f"Image {number}" for number in range(1, len(images) + 1)]
                sources = [
                    await asyncio.wrap_future(self._reader.read_tags(content, name))
                    for content, name in zip(images, names, strict=True)
                ]
                content = await asyncio.to_thread(self._draft, report, sources)
        except (TooLongError, DisconnectedError):
            return PlainTextResponse(f"{TOO_LONG} {too_many_bytes(self._limits)}", 413)
        except TooSlowError as error:
            return PlainTextResponse(str(error), 408, {"connection": "close"})
        except DataError as error:
            return PlainTextResponse(str(error), 422)
        return Response(content, media_type=TYPES[report.format], headers={"cache-control": "no-store"})

    async def _form(self, request: Request) -> tuple[EditedReport, list[bytes]]:
        limits = self._limits
        parts = body_parts(
            request.receive,
            most_bytes=MAX_VIEWS * limits.max_bytes + OVERHEAD,
            idle_seconds=limits.idle_seconds,
            seconds=limits.body_seconds,
        )
        if not request.headers.get("content-type", "").startswith("multipart/form-data"):
            raise DataError("The page sent something that is not a request; please reload it.")
        parser = MemoryParser(request.headers, parts, max_files=MAX_VIEWS, max_fields=1, max_part_size=OVERHEAD)
        try:
            fields = await parser.parse()
        except MultiPartException as error:
            raise TooLongError(TOO_LONG) if "maximum size" in error.message else DataError(
                f"The page sent something that cannot be read: {error.message}"
            ) from None
        files = [await value.read() for value in fields.getlist("images") if isinstance(value, UploadFile)]
        if not files:
            raise DataError("A draft requires the DICOM images (CR, DX or RG) of the report; got none.")
        return _edited(str(fields.get("report"))), files

    @cached_property
    def _origin(self) -> ReportOrigin:
        return run_origin(self._run)

    def _draft(self, report: EditedReport, sources: list[SourceImage]) -> bytes:
        check_study(sources)
        draft, now = report.draft(), datetime.now().astimezone()
        if report.format == "fhir":
            resource = diagnostic_report(sources, draft, self._origin, now=now)
            return (json.dumps(resource, indent=2, ensure_ascii=False) + "\n").encode()
        stream = BytesIO()
        basic_text_sr(sources, draft, self._origin, now=now).save_as(stream, enforce_file_format=True)
        return stream.getvalue()


def _edited(text: str) -> EditedReport:
    try:
        return EditedReport.model_validate_json(text)
    except ValidationError as error:
        if any(each["type"] in {"string_too_long", "too_long"} for each in error.errors()):
            raise TooLongError(TOO_LONG) from None
        raise DataError("The page sent something that is not a report; please reload it.") from None

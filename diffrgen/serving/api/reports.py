"""`POST /v1/reports`: the images of a study in, its report out."""

from __future__ import annotations

import asyncio
import logging

from fastapi import Request
from fastapi.responses import JSONResponse, Response

from diffrgen.clinical.origin import ReportOrigin
from diffrgen.errors import DataError
from diffrgen.images import ResizedImages
from diffrgen.reporting.prior_study import PriorStudy
from diffrgen.reporting.study_images import StudyImages
from diffrgen.serving.api.answer import report_answer
from diffrgen.serving.api.bearer import VARIABLE, knows_token
from diffrgen.serving.api.form import StudyForm, TakenInputs, most_bytes, read_form
from diffrgen.serving.api.problem import RefusedError
from diffrgen.serving.body import DisconnectedError, TooLongError, TooSlowError, body_parts
from diffrgen.serving.clients import BusyError, Turns, client_of
from diffrgen.serving.image_reader import ImageReader
from diffrgen.serving.model_queue import ModelQueue
from diffrgen.serving.options import UploadLimits
from diffrgen.serving.service import place_of
from diffrgen.serving.upload import check_one, study_of_uploads, upload_warnings
from diffrgen.text import printable

LOGGER = logging.getLogger(__name__)
# Bodies received at the same time, each of up to five images; one client may have half of them.
RECEIVED_AT_ONCE, WAITING = 4, 64
FORM = "multipart/form-data"


class ReportApi:
    """Answers requests: clients take turns for the body and for the model; images are decoded one at a time."""

    def __init__(
        self, queue: ModelQueue, images: ImageReader, limits: UploadLimits, origin: ReportOrigin, token: str
    ) -> None:
        self._queue, self._images, self._limits, self._origin, self._token = queue, images, limits, origin, token
        reporter = queue.reporter
        self._takes = TakenInputs(reporter.takes_views, reporter.takes_priors, reporter.takes_context)
        self._most_bytes = most_bytes(limits, self._takes)
        self._receiving = Turns(RECEIVED_AT_ONCE, per_client=RECEIVED_AT_ONCE // 2, waiting=WAITING)
        self._decoding = Turns(1, per_client=1, waiting=RECEIVED_AT_ONCE)

    async def answer(self, request: Request) -> Response:
        """Return the report of the study in the request as JSON, or a `Problem`."""
        try:
            self._check_head(request)
            return await self._report(request, client_of(request.scope))
        except RefusedError as refused:
            return refused.response()
        except DisconnectedError:
            return Response(status_code=400)
        except BusyError as error:
            return RefusedError(503, str(error), expected="a free place", got="all places are taken").response()
        except Exception as error:
            # The message of an unforeseen error may quote an upload: only its kind and place are logged.
            LOGGER.error("a request failed: %s at %s", type(error).__name__, place_of(error))
            return RefusedError(
                500, "Something went wrong here, and no report was generated.", expected="a report", got="none"
            ).response()

    def _check_head(self, request: Request) -> None:
        """Refuse what can be refused before the body is read."""
        if not knows_token(request.headers.get("authorization"), self._token):
            given = "another" if "authorization" in request.headers else "none"
            raise RefusedError(
                401,
                "The token is missing or wrong.",
                expected=f"the header Authorization: Bearer, with the token that the service got as {VARIABLE}",
                got=given,
            )
        kind = request.headers.get("content-type", "")
        if kind.partition(";")[0].strip().lower() != FORM:
            raise RefusedError(
                415, f"The body is not {FORM}.", expected=FORM, got=printable(kind)[:80] or "no content type"
            )
        length = request.headers.get("content-length", "0")
        if length.isdecimal() and int(length) > self._most_bytes:
            raise self._too_long(f"{int(length)} bytes")

    def _too_long(self, got: str) -> RefusedError:
        return RefusedError(413, "The body is too long.", expected=f"at most {self._most_bytes} bytes", got=got)

    async def _report(self, request: Request, client: str) -> Response:
        # The slot is held until the images are decoded, so that the number of slots bounds the memory.
        async with self._receiving.turn(client):
            form = await self._form(request)
            study, prior, uploads = await self._study(form, client)
        labels, warnings = self._queue.reporter.stated_findings, upload_warnings(uploads)
        try:
            answer = await self._queue.ask(
                study,
                prior,
                client,
                lambda explained: report_answer(explained, self._origin, labels, warnings),
                context=form.context,
            )
        except BusyError:
            raise
        except DataError as error:
            raise self._unreadable(error) from None
        return JSONResponse(answer.model_dump(exclude_none=True), headers={"cache-control": "no-store"})

    async def _form(self, request: Request) -> StudyForm:
        limits = self._limits
        parts = body_parts(
            request.receive,
            most_bytes=self._most_bytes,
            idle_seconds=limits.idle_seconds,
            # The page's time limit, for each image.
            seconds=limits.body_seconds * (self._takes.views + self._takes.prior),
        )
        try:
            return await read_form(request.headers, parts, limits, self._takes)
        except TooLongError:
            raise self._too_long("more") from None
        except TooSlowError as error:
            expected = f"no pause of more than {limits.idle_seconds:g} s"
            raise RefusedError(408, str(error), expected=expected, got="a longer one, or too long a body") from None

    async def _study(self, form: StudyForm, client: str) -> tuple[StudyImages, PriorStudy | None, list[ResizedImages]]:
        """Decode the images of a request; those of several patients or studies are rejected."""
        try:
            images = [await self._decoded(content, client) for content in form.images]
            prior_image = None if form.prior_image is None else await self._decoded(form.prior_image, client)
        except BusyError:
            raise
        except DataError as error:
            raise self._unreadable(error) from None
        try:
            study = study_of_uploads(images)
            uploads = [*images, *([] if prior_image is None else [prior_image])]
            check_one(uploads, "patient")
        except DataError as error:
            expected = "images of one study, and a prior study of the same patient"
            raise RefusedError(422, str(error), expected=expected, got="images of several, by their tags") from None
        if prior_image is None and not form.prior_report:
            return study, None, uploads
        return study, PriorStudy(prior_image, form.prior_report or None), uploads

    async def _decoded(self, content: bytes, client: str) -> ResizedImages:
        async with self._decoding.turn(client):
            return await asyncio.wrap_future(self._images.read(content))

    def _unreadable(self, error: DataError) -> RefusedError:
        limits = self._limits
        expected = (
            f"PNG, JPEG or DICOM of at most {limits.max_megabytes} MB and {limits.max_megapixels} million pixels an image"
        )
        return RefusedError(422, "An image cannot be used.", expected=expected, got=str(error))

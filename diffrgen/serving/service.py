"""Answers requests one at a time: takes the held images, generates the report, renders it, stores nothing."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from diffrgen.errors import DataError
from diffrgen.explanation import Explainer
from diffrgen.images import ResizedImages
from diffrgen.pipeline.options import GenerationOptions
from diffrgen.records import Sections
from diffrgen.reporting.prior_study import PriorStudy
from diffrgen.reporting.study_images import StudyImages
from diffrgen.serving.gallery import Example
from diffrgen.serving.held_images import HeldImages
from diffrgen.serving.model_queue import ModelQueue
from diffrgen.serving.options import UploadLimits
from diffrgen.serving.request import ReportRequest
from diffrgen.serving.result import problem_html, result_html
from diffrgen.serving.upload import check_one, study_of_uploads, upload_warnings

LOGGER = logging.getLogger(__name__)
UNEXPECTED = "Something went wrong here, and no report was generated. The image was not stored; please try another image."


class ReportService:
    """Handles the page's requests for reports.

    waiting: maximum number of waiting requests; their images are already decoded and no longer expire.
    """

    def __init__(
        self,
        explainer: Explainer,
        examples: Sequence[Example],
        limits: UploadLimits,
        generation: GenerationOptions,
        *,
        waiting: int = 32,
    ) -> None:
        self.held = HeldImages(limits)
        self._examples, self._limits = examples, limits
        self._queue = ModelQueue(explainer, limits, generation, waiting=waiting)
        self._reporter = explainer.reporter

    async def answer(self, content: object, client: str) -> str:
        """Return the HTML response to a browser's message: an explained report, or an error message."""
        try:
            request = ReportRequest.of(content)
            study, prior = self._study(request)
            context = self._context(request)
            images = [*study.images, *([] if prior is None else [prior.image])]
            warnings = upload_warnings([image for image in images if isinstance(image, ResizedImages)])
            return await self._queue.ask(
                study, prior, client, lambda explained: result_html(explained, warnings), context=context
            )
        except DataError as error:
            return problem_html(str(error))
        except Exception as error:
            # The message of an unforeseen error may quote the visitor's file: only its kind and place are logged.
            LOGGER.error("a request failed: %s at %s", type(error).__name__, place_of(error))
            return problem_html(UNEXPECTED)

    def _study(self, request: ReportRequest) -> tuple[StudyImages, PriorStudy | None]:
        """The images to report and the prior study: uploads, or files of the gallery."""
        # All images are taken before any is checked, so that a rejected request leaves none behind.
        sent_images = (request.image, request.second_image, request.prior_image)
        image, second, prior_image = (None if sent is None else self.held.take(sent.token) for sent in sent_images)
        if second is not None and self._reporter.takes_views == 1:
            raise DataError("This model accepts one image per study; please remove the second view.")
        if image is None:
            study = StudyImages((self._example(request).image,))
        else:
            study = study_of_uploads([each for each in (image, second) if each is not None])
            check_one([each for each in (image, prior_image) if each is not None], "patient")
        earlier: Path | ResizedImages | None = prior_image
        if earlier is None and request.example_prior:
            earlier = self._example(request).prior_image
        prior_report = request.prior_report.strip()
        if len(prior_report) > self._limits.max_report_characters:
            raise DataError(
                f"The prior report is too long: at most {self._limits.max_report_characters} characters are accepted."
            )
        if earlier is None and not prior_report:
            return study, None
        if not self._reporter.takes_priors:
            raise DataError("This model was trained without prior studies; please remove the prior study.")
        return study, PriorStudy(earlier, prior_report or None)

    def _context(self, request: ReportRequest) -> Sections:
        """The sections known before the images are read; DataError, worded for the visitor, if the run does not take them."""
        context, most = request.context, self._limits.max_report_characters
        for name, text in context.to_record().items():
            if name not in self._reporter.takes_context:
                raise DataError(f"This model was trained without the {name} of a study; please remove it.")
            if len(text) > most:
                raise DataError(f"The {name} is too long: at most {most} characters are accepted.")
        return context

    def _example(self, request: ReportRequest) -> Example:
        if request.example is None or request.example >= len(self._examples):
            raise DataError("There is no such example; please reload the page.")
        return self._examples[request.example]


def place_of(error: Exception) -> str:
    """Return the file and line of this project, or of a library, in which `error` was raised."""
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    return "?" if frame is None else f"{Path(frame.tb_frame.f_code.co_filename).name}:{frame.tb_lineno}"

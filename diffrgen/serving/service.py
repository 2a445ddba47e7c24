"""Answers one request after another: takes the images, asks the model, shows the report, keeps nothing."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from diffrgen.errors import DataError
from diffrgen.explanation import ExplainedReport, Explainer
from diffrgen.pipeline.options import GenerationOptions
from diffrgen.reporting.prior_study import PriorStudy
from diffrgen.reporting.study_images import StudyImages
from diffrgen.serving.clients import Turns
from diffrgen.serving.gallery import Example
from diffrgen.serving.held_images import HeldImages
from diffrgen.serving.options import UploadLimits
from diffrgen.serving.refusals import for_visitors
from diffrgen.serving.request import ReportRequest
from diffrgen.serving.result import problem_html, result_html

LOGGER = logging.getLogger(__name__)
UNEXPECTED = "Something went wrong here, and no report was written. The image was not kept; please try another one."


class ReportService:
    """The model behind the page: one report at a time, clients by turns.

    waiting: requests that wait for their turn; their images have been decoded, and no longer expire.
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
        self._explainer, self._examples, self._limits, self._generation = explainer, examples, limits, generation
        self._turns = Turns(1, per_client=1, waiting=waiting)
        # A client that goes away gives its turn back while its report is still being generated; the next one waits here.
        self._model = ThreadPoolExecutor(1, "model")

    async def answer(self, content: object, client: str) -> str:
        """Return the HTML that answers what a browser sent: a report with its reasons, or what is wrong, in words."""
        try:
            study, prior = self._study(ReportRequest.of(content))
            async with self._turns.turn(client):
                return await asyncio.get_running_loop().run_in_executor(self._model, self._html, study, prior)
        except DataError as error:
            return problem_html(str(error))
        except Exception as error:
            # The message of an unforeseen error may quote the visitor's file: only its kind and place are logged.
            LOGGER.error("a request failed: %s at %s", type(error).__name__, _place(error))
            return problem_html(UNEXPECTED)

    def _html(self, study: StudyImages, prior: PriorStudy | None) -> str:
        return result_html(self._explained(study, prior))

    def _explained(self, study: StudyImages, prior: PriorStudy | None) -> ExplainedReport:
        with for_visitors(self._limits):
            (explained,) = self._explainer.explain(
                [study], self._generation, priors=None if prior is None else [prior]
            )
        return explained

    def _study(self, request: ReportRequest) -> tuple[StudyImages, PriorStudy | None]:
        """The images to report and the prior study: uploads, or files of the gallery."""
        # All leave the held images before any is looked at, so that a refused one keeps none there.
        sent_images = (request.image, request.second_image, request.prior_image)
        image, second, prior_image = (None if sent is None else self.held.take(sent.token) for sent in sent_images)
        if second is not None and self._explainer.reporter.takes_views == 1:
            raise DataError("This model takes one image of a study; please leave the second view out.")
        if image is None:
            image = self._example(request).image
        study = StudyImages((image,) if second is None else (image, second))
        if prior_image is None and request.example_prior:
            prior_image = self._example(request).prior_image
        prior_report = request.prior_report.strip()
        if len(prior_report) > self._limits.max_report_characters:
            raise DataError(
                f"The earlier report is too long: at most {self._limits.max_report_characters} characters are accepted."
            )
        if prior_image is None and not prior_report:
            return study, None
        if not self._explainer.reporter.takes_priors:
            raise DataError("This model was trained without earlier studies; please leave the earlier one out.")
        return study, PriorStudy(prior_image, prior_report or None)

    def _example(self, request: ReportRequest) -> Example:
        if request.example is None or request.example >= len(self._examples):
            raise DataError("There is no such example; please reload the page.")
        return self._examples[request.example]


def _place(error: Exception) -> str:
    """File and line of this project, or of a library, in which `error` was raised."""
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    return "?" if frame is None else f"{Path(frame.tb_frame.f_code.co_filename).name}:{frame.tb_lineno}"

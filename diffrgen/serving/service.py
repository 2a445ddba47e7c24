"""Answers one request after another: reads what was uploaded, asks the model, shows the report, keeps nothing."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from pathlib import Path

from diffrgen.errors import DataError
from diffrgen.explanation import ExplainedReport, Explainer
from diffrgen.pipeline.options import GenerationOptions
from diffrgen.reporting.prior_study import PriorStudy
from diffrgen.serving.dicom_reader import DicomReader
from diffrgen.serving.gallery import Example
from diffrgen.serving.options import UploadLimits
from diffrgen.serving.request import ReportRequest, SentImage
from diffrgen.serving.result import problem_html, result_html
from diffrgen.serving.shelf import Shelf
from diffrgen.serving.upload import checked_image, private_folder, told_to_visitors

LOGGER = logging.getLogger(__name__)
UNEXPECTED = "Something went wrong here, and no report was written. The image was not kept; please try another one."


class ReportService:
    """The model behind the page, asked by one visitor at a time."""

    def __init__(
        self,
        explainer: Explainer,
        examples: Sequence[Example],
        limits: UploadLimits,
        generation: GenerationOptions,
    ) -> None:
        self.shelf = Shelf(limits)
        self._explainer, self._examples, self._limits, self._generation = explainer, examples, limits, generation
        self._dicoms = DicomReader()
        self._lock = threading.Lock()

    def answer(self, content: object) -> str:
        """Return the HTML that answers what a browser sent: a report with its reasons, or what is wrong, in words."""
        try:
            with self._lock:
                return result_html(self._explained(ReportRequest.of(content)))
        except DataError as error:
            return problem_html(str(error))
        except Exception as error:
            # The message of an unforeseen error may quote the visitor's file: only its kind and place are logged.
            LOGGER.error("a request failed: %s at %s", type(error).__name__, _place(error))
            return problem_html(UNEXPECTED)

    def _explained(self, request: ReportRequest) -> ExplainedReport:
        with private_folder() as folder:
            image, prior = self._study(request, folder)
            with told_to_visitors(self._limits):
                (explained,) = self._explainer.explain(
                    [image], self._generation, priors=None if prior is None else [prior]
                )
            return explained

    def _study(self, request: ReportRequest, folder: Path) -> tuple[Path, PriorStudy | None]:
        """The image to report and the earlier study, as files of `folder` or of the gallery."""
        # Both leave the shelf before either is looked at, so that a refused one keeps none there.
        contents = [None if sent is None else self.shelf.take(sent.token) for sent in (request.image, request.prior_image)]
        image = self._checked(contents[0], request.image, folder / "image")
        prior_image = self._checked(contents[1], request.prior_image, folder / "earlier")
        if image is None:
            image = self._example(request).image
        if prior_image is None and request.example_prior:
            prior_image = self._example(request).prior_image
        prior_report = request.prior_report.strip()
        if len(prior_report) > self._limits.max_report_characters:
            raise DataError(
                f"The earlier report is too long: at most {self._limits.max_report_characters} characters are accepted."
            )
        if prior_image is None and not prior_report:
            return image, None
        if not self._explainer.reporter.takes_priors:
            raise DataError("This model was trained without earlier studies; please leave the earlier one out.")
        return image, PriorStudy(prior_image, prior_report or None)

    def _example(self, request: ReportRequest) -> Example:
        if request.example is None or request.example >= len(self._examples):
            raise DataError("There is no such example; please reload the page.")
        return self._examples[request.example]

    def _checked(self, content: bytes | None, sent: SentImage | None, path: Path) -> Path | None:
        """Write an upload to `path` and check it; the message of a refusal says which of the two images it is."""
        if content is None or sent is None:
            return None
        try:
            return checked_image(content, path, self._limits, self._dicoms, dicom=sent.dicom)
        except DataError as error:
            raise DataError(f"{'Earlier image: ' if path.name == 'earlier' else ''}{error}") from None


def _place(error: Exception) -> str:
    """File and line of this project, or of a library, in which `error` was raised."""
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    return "?" if frame is None else f"{Path(frame.tb_frame.f_code.co_filename).name}:{frame.tb_lineno}"

"""The model behind the service: one report at a time; clients take turns."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from diffrgen.explanation import ExplainedReport, Explainer
from diffrgen.pipeline.options import GenerationOptions
from diffrgen.records import NO_SECTIONS, Sections
from diffrgen.reporting.prior_study import PriorStudy
from diffrgen.reporting.study_images import StudyImages
from diffrgen.serving.clients import Turns
from diffrgen.serving.options import UploadLimits
from diffrgen.serving.refusals import for_visitors

Answer = TypeVar("Answer")


class ModelQueue:
    """Generates reports in a separate thread.

    waiting: requests that wait for their turn.
    """

    def __init__(self, explainer: Explainer, limits: UploadLimits, generation: GenerationOptions, *, waiting: int) -> None:
        self.reporter = explainer.reporter
        self._explainer, self._limits, self._generation = explainer, limits, generation
        self._turns = Turns(1, per_client=1, waiting=waiting)
        # A client that disconnects frees its turn while its report is still being generated; the next request waits here.
        self._model = ThreadPoolExecutor(1, "model")

    async def ask(
        self,
        study: StudyImages,
        prior: PriorStudy | None,
        client: str,
        shown: Callable[[ExplainedReport], Answer],
        *,
        context: Sections = NO_SECTIONS,
    ) -> Answer:
        """Return `shown(report)` for the report of `study`; DataError, with a message for the client, if too many requests wait.

        context: sections known before the images are read, for a run that takes them.
        """
        loop = asyncio.get_running_loop()
        async with self._turns.turn(client):
            return await loop.run_in_executor(self._model, self._answer, study, prior, context, shown)

    def _answer(
        self,
        study: StudyImages,
        prior: PriorStudy | None,
        context: Sections,
        shown: Callable[[ExplainedReport], Answer],
    ) -> Answer:
        with for_visitors(self._limits):
            (explained,) = self._explainer.explain(
                [study], self._generation, priors=None if prior is None else [prior], context=[context]
            )
        return shown(explained)

"""The model behind the service: one report at a time, clients by turns."""

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
    """Has reports generated in a thread of its own.

    waiting: requests that wait for their turn.
    """

    def __init__(self, explainer: Explainer, limits: UploadLimits, generation: GenerationOptions, *, waiting: int) -> None:
        self.reporter = explainer.reporter
        self._explainer, self._limits, self._generation = explainer, limits, generation
        self._turns = Turns(1, per_client=1, waiting=waiting)
        # A client that goes away gives its turn back while its report is still being generated; the next one waits here.
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
        """Return the report of `study` as `shown`; DataError, in words for the client, where too many wait.

        context: what is known before the images are read, for a run that takes it.
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

"""A written report with everything that a reader may ask of it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from diffrgen.evaluation.writer import WrittenReport
from diffrgen.explanation.differences import MetricDifference
from diffrgen.explanation.routes import LayerRoute
from diffrgen.explanation.sentences import ReportSentence


@dataclass(frozen=True)
class NeighbourSentence:
    """A sentence of a retrieved report; shared: whether the generated report says it, word for word."""

    text: str
    shared: bool


@dataclass(frozen=True)
class ExplainedReport:
    """A report and why: `written` says what, the rest where it comes from.

    image (S, S) uint8: the grey crop that the network saw; sentences: of the report, in order; differences: the three
    metrics of Eq. 1 for each of `written.neighbours`; neighbour_sentences: their reports, shared sentences marked;
    routes: one a layer. position: which of the images given it belongs to.
    """

    written: WrittenReport
    position: int
    image: np.ndarray = field(repr=False)
    sentences: tuple[ReportSentence, ...]
    neighbour_sentences: tuple[tuple[NeighbourSentence, ...], ...]
    differences: tuple[tuple[MetricDifference, ...], ...]
    routes: tuple[LayerRoute, ...]

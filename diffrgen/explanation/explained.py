"""A written report with everything that a reader may ask of it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

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

    def to_dict(self) -> dict[str, object]:
        """Return plain values for JSON, those of `written` first; without the image and what follows from the texts."""
        sentences = [
            {
                "text": sentence.text,
                "heat": np.round(sentence.heat, 4).tolist(),
                "attention": _rounded(asdict(sentence.shares)),
                "shared_with": list(sentence.shared_with),
            }
            for sentence in self.sentences
        ]
        differences = [
            {d.metric: {"value": round(d.value, 4), "rank": d.rank, "words": d.words} for d in neighbour}
            for neighbour in self.differences
        ]
        routes = [
            {"layer": route.layer, "stream": route.stream, "orders": list(route.orders), "chosen": route.chosen}
            for route in self.routes
        ]
        return {**self.written.to_dict(), "sentences": sentences, "differences": differences, "routes": routes}


def _rounded(shares: dict[str, float]) -> dict[str, float]:
    return {part: round(share, 4) for part, share in shares.items()}

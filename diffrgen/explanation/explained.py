"""A generated report with its explanation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from diffrgen.explanation.differences import MetricDifference
from diffrgen.explanation.routes import LayerRoute
from diffrgen.explanation.seen import SeenFinding
from diffrgen.explanation.sentences import MarkedSentence, ReportSentence
from diffrgen.records import main_view
from diffrgen.reporting.confidence import SentenceConfidence
from diffrgen.reporting.writer import GeneratedReport


@dataclass(frozen=True)
class ExplainedPrior:
    """The patient's prior study.

    states: the prior states in the prompt, by finding: those of the report, or else of the image.
    image (S, S) uint8: cropped as the network's, or None; sentences: of the prior report, those that the generated
    report repeats marked; differences: the metrics of Eq. 1 of each of its rows, ranked among the retrieved reports:
    first the image where there is one, then the sentences of the report that the network takes.
    """

    states: Mapping[str, str]
    image: np.ndarray | None = field(repr=False)
    sentences: tuple[MarkedSentence, ...]
    differences: tuple[tuple[MetricDifference, ...], ...]


@dataclass(frozen=True)
class ExplainedReport:
    """A report (`written`) and its explanation (the other fields).

    images (V, S, S) uint8: the grey crop of each view that the network saw; sentences: of the report, in order;
    differences: the three metrics of Eq. 1 for each of `written.neighbours`; neighbour_sentences: their reports, shared
    sentences marked; routes: one per layer; prior: the prior study if one was given. position: which of the studies
    given it belongs to. seen: where in the main view each finding is seen, of a network with finding queries.
    """

    written: GeneratedReport
    position: int
    images: np.ndarray = field(repr=False)
    sentences: tuple[ReportSentence, ...]
    neighbour_sentences: tuple[tuple[MarkedSentence, ...], ...]
    differences: tuple[tuple[MetricDifference, ...], ...]
    routes: tuple[LayerRoute, ...]
    prior: ExplainedPrior | None = None
    seen: tuple[SeenFinding, ...] = ()

    @property
    def main(self) -> int:
        """The index of the study's main view."""
        return main_view(self.written.views)

    @property
    def confidence(self) -> tuple[SentenceConfidence | None, ...]:
        """The confidence of each of `sentences`; None for each if the run has no calibration."""
        return self.written.confidence or (None,) * len(self.sentences)

    @property
    def findings(self) -> list[str]:
        """The sentences of the findings; of a run that writes one text, all of them."""
        return [sentence.text for sentence in self.sentences if sentence.section != "impression"]

    @property
    def impression(self) -> list[str] | None:
        """The sentences of the impression; None for a run that writes one text."""
        if self.written.sections is None:
            return None
        return [sentence.text for sentence in self.sentences if sentence.section == "impression"]

    @property
    def image(self) -> np.ndarray:
        """The grey crop (S, S) uint8 of the main view."""
        return self.images[self.main]

    def to_dict(self) -> dict[str, object]:
        """Return plain values for JSON, those of `written` first; without the images and what follows from the texts."""
        sentences = [
            {
                "text": sentence.text,
                "heat": np.round(sentence.heat, 4).tolist(),
                "attention": _rounded(asdict(sentence.shares)),
                "shared_with": list(sentence.shared_with),
                **({} if sentence.section is None else {"section": sentence.section}),
            }
            for sentence in self.sentences
        ]
        routes = [
            {"layer": route.layer, "stream": route.stream, "orders": list(route.orders), "chosen": route.chosen}
            for route in self.routes
        ]
        reasons: dict[str, Any] = {"sentences": sentences, "differences": _plain(self.differences), "routes": routes}
        if self.seen:
            reasons["findings_seen"] = {
                seen.finding: {"centre": [round(x, 4) for x in seen.centre], "heat": np.round(seen.heat, 4).tolist()}
                for seen in self.seen
            }
        if self.prior is not None:
            sentences = [asdict(sentence) for sentence in self.prior.sentences]
            reasons["prior"] = {
                "states": dict(self.prior.states),
                "sentences": sentences,
                "differences": _plain(self.prior.differences),
            }
        return {**self.written.to_dict(), **reasons}


def _plain(differences: Sequence[tuple[MetricDifference, ...]]) -> list[dict[str, dict[str, object]]]:
    return [
        {d.metric: {"value": round(d.value, 4), "rank": d.rank, "of": d.count, "words": d.words} for d in row}
        for row in differences
    ]


def _rounded(shares: dict[str, float]) -> dict[str, float]:
    return {part: round(share, 4) for part, share in shares.items()}

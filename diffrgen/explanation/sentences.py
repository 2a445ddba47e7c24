"""The sentences of a generated report, and the retrieved reports that contain them verbatim."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from diffrgen.explanation.attention import AttentionShares
from diffrgen.text import report_sentences, same_words


@dataclass(frozen=True)
class ReportSentence:
    """One sentence of the generated report.

    heat (V, gh, gw) float32, a grid a view, sums to 1: where in the images the attention to patches went while it was
    written; shares: how much of all attention that was; shared_with: positions in `neighbours` of the reports that hold
    the sentence; section: which one the sentence is of, None for a run that writes one text.
    """

    text: str
    heat: np.ndarray = field(repr=False)
    shares: AttentionShares
    shared_with: tuple[int, ...]
    section: Literal["findings", "impression"] | None = None


@dataclass(frozen=True)
class MarkedSentence:
    """A sentence of a retrieved or a prior report; shared: whether the generated report repeats it verbatim."""

    text: str
    shared: bool


def mark_shared(report: str, shared: Iterable[str]) -> tuple[MarkedSentence, ...]:
    """Cut another report into its sentences and mark those that are among the sentences `shared`."""
    own = {same_words(sentence) for sentence in shared}
    return tuple(MarkedSentence(text, same_words(text) in own) for text in report_sentences(report))

"""Diversity of a set of generated reports: one report for every study can score well on the other metrics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class ReportDiversity:
    """`distinct` texts of `studies` (`distinct_ratio` their quotient), mean words a report, distinct words in all."""

    studies: int
    distinct: int
    distinct_ratio: float
    mean_words: float
    vocabulary: int

    def to_dict(self) -> dict[str, float]:
        """Return plain values, ready for JSON."""
        return asdict(self)


def report_diversity(hypotheses: Sequence[str]) -> ReportDiversity:
    """Measure the variety of `hypotheses`; words are what white space separates, case is kept.

    Raises:
        ValueError: the list is empty.
    """
    if not hypotheses:
        raise ValueError("expected at least one report, got an empty list")
    reports = [tuple(text.split()) for text in hypotheses]
    distinct = len(set(reports))
    return ReportDiversity(
        studies=len(reports),
        distinct=distinct,
        distinct_ratio=distinct / len(reports),
        mean_words=sum(map(len, reports)) / len(reports),
        vocabulary=len({word for words in reports for word in words}),
    )

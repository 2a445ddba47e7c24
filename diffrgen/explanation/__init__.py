"""Explanation of a report: attention, shared sentences, differences and routes, taken from the forward pass of the network."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diffrgen.lazy import on_first_use

if TYPE_CHECKING:
    from diffrgen.explanation.attention import AttentionShares
    from diffrgen.explanation.differences import MetricDifference
    from diffrgen.explanation.explained import ExplainedPrior, ExplainedReport
    from diffrgen.explanation.explainer import Explainer
    from diffrgen.explanation.routes import LayerRoute
    from diffrgen.explanation.seen import SeenFinding
    from diffrgen.explanation.sentences import MarkedSentence, ReportSentence

__all__ = [
    "AttentionShares",
    "ExplainedPrior",
    "ExplainedReport",
    "Explainer",
    "LayerRoute",
    "MarkedSentence",
    "MetricDifference",
    "ReportSentence",
    "SeenFinding",
]

__getattr__ = on_first_use(__name__, __file__)

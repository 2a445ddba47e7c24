"""Labels of reports: the 14 findings, their states, and the labelers."""

from __future__ import annotations

from diffrgen.labels.agreement import agreeing, probability_of_agreement
from diffrgen.labels.findings import (
    AUXILIARY,
    COMMON,
    DISEASES,
    FINDINGS,
    NO_FINDING,
    NO_STUDY,
    Labeler,
    Severity,
    State,
)
from diffrgen.labels.frequencies import base_frequencies
from diffrgen.labels.rules import RuleLabeler
from diffrgen.labels.severity import SeverityReader
from diffrgen.labels.words import CLASSES, OTHER, SEVERITY_WORDS, WORDS, word_class

__all__ = [
    "AUXILIARY",
    "CLASSES",
    "COMMON",
    "DISEASES",
    "FINDINGS",
    "NO_FINDING",
    "NO_STUDY",
    "OTHER",
    "SEVERITY_WORDS",
    "WORDS",
    "Labeler",
    "RuleLabeler",
    "Severity",
    "SeverityReader",
    "State",
    "agreeing",
    "base_frequencies",
    "probability_of_agreement",
    "word_class",
]

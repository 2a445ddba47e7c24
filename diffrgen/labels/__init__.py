"""Labels of reports: the 14 findings, their states, and the labelers."""

from __future__ import annotations

from diffrgen.labels.agreement import agreeing, probability_of_agreement
from diffrgen.labels.findings import AUXILIARY, COMMON, DISEASES, FINDINGS, NO_FINDING, NO_STUDY, Labeler, State
from diffrgen.labels.frequencies import base_frequencies
from diffrgen.labels.rules import RuleLabeler
from diffrgen.labels.words import CLASSES, OTHER, WORDS, word_class

__all__ = [
    "AUXILIARY",
    "CLASSES",
    "COMMON",
    "DISEASES",
    "FINDINGS",
    "NO_FINDING",
    "NO_STUDY",
    "OTHER",
    "WORDS",
    "Labeler",
    "RuleLabeler",
    "State",
    "agreeing",
    "base_frequencies",
    "probability_of_agreement",
    "word_class",
]

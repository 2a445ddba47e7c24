"""Words that describe a finding: its severity, side, zone and change."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from diffrgen.labels.findings import Severity

OTHER = "other"
SEVERITY_WORDS: Mapping[Severity, tuple[str, ...]] = MappingProxyType(
    {
        Severity.MILD: ("tiny", "trace", "small", "minimal", "minimally", "slight", "slightly", "mild", "mildly", "minor"),
        Severity.MODERATE: ("moderate", "moderately", "intermediate", "medium", "fairly", "noticeably"),
        Severity.SEVERE: (
            *("large", "sizeable", "severe", "severely", "marked", "markedly", "extensive", "massive", "grossly"),
        ),
    }
)
WORDS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "severity": tuple(word for words in SEVERITY_WORDS.values() for word in words),
        "side": ("left", "right", "bilateral", "bilaterally", "both", "unilateral"),
        "zone": (
            *("upper", "mid", "middle", "lower", "midlung", "lingula", "lingular", "base", "bases", "basal", "basilar"),
            *("bibasilar", "bibasal", "biapical", "apical", "apex", "apices", "perihilar", "retrocardiac"),
        ),
        "change": (
            *("new", "newly", "developed", "development", "appeared", "increased", "increase", "increasing", "larger"),
            *("worse", "worsened", "worsening", "progressed", "progression", "decreased", "decrease", "decreasing"),
            *("improved", "improving", "improvement", "smaller", "residual", "clearing", "resolved", "resolution"),
            *("resolving", "cleared", "unchanged", "stable", "persistent", "persists", "similar", "again"),
        ),
    }
)
CLASSES: tuple[str, ...] = (*WORDS, OTHER)
_CLASS_OF = {word: name for name, words in WORDS.items() for word in words}


def word_class(word: str) -> str:
    """Return the class of a word, one of CLASSES, regardless of the finding.

    >>> [word_class(word) for word in ("Moderate", "left", "bibasilar", "unchanged", "effusion")]
    ['severity', 'side', 'zone', 'change', 'other']
    """
    return _CLASS_OF.get(word.lower(), OTHER)

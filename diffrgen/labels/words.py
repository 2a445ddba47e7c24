"""Words that describe a finding: its severity, side, zone and change."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

OTHER = "other"
WORDS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "severity": (
            *("tiny", "trace", "small", "minimal", "minimally", "slight", "slightly", "mild", "mildly", "minor"),
            *("moderate", "moderately", "intermediate", "medium", "fairly", "noticeably"),
            *("large", "sizeable", "severe", "severely", "marked", "markedly", "extensive", "massive", "grossly"),
        ),
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

"""Temporal-entity F1: do a report and its reference use the same words of change?

Source: Bannur et al., "Learning to Exploit Temporal Structure for Biomedical Vision-Language Processing" (BioViL-T, CVPR 2023),
which calls it temporal entity matching; the words are those of its appendix, and the treatment of reports without any is that of
Libra's and RadEval's code.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from diffrgen.metrics.bootstrap import Interval, mean_interval

_LISTED = """
bigger change cleared constant decrease decreased decreasing elevated elevation enlarged enlargement enlarging expanded greater
growing improved improvement improving increase increased increasing larger new persistence persistent persisting progression
progressive reduced removal resolution resolved resolving smaller stability stable stably unaltered unchanged unfolded worse
worsen worsened worsening
"""
WORDS = frozenset(_LISTED.split())
WORD = re.compile(r"[a-z]+")


@dataclass(frozen=True)
class TemporalScore:
    """f1: the mean over studies; interval: its 95 % interval; mentioned: studies whose reference uses a word of change."""

    f1: float
    interval: Interval | None
    mentioned: int

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)


def temporal_entities(text: str) -> frozenset[str]:
    """Return the words of change that a report uses.

    >>> sorted(temporal_entities("Unchanged heart. New effusion, worse than before."))
    ['new', 'unchanged', 'worse']

    NOTE: RadEval also runs a tagger over the report, and keeps of its entities those that are among the same words.
    """
    return WORDS.intersection(WORD.findall(text.lower()))


def temporal_f1(hypotheses: Sequence[str], references: Sequence[str]) -> np.ndarray:
    """Return F1 = 2 |H & R| / (|H| + |R|) of the words of change of each study, (n,); 1 where neither side uses any."""
    pairs = [(temporal_entities(one), temporal_entities(other)) for one, other in zip(hypotheses, references, strict=True)]
    return np.array([2 * len(one & other) / (len(one) + len(other)) if one or other else 1.0 for one, other in pairs])


def temporal_score(
    hypotheses: Sequence[str], references: Sequence[str], *, resamples: int = 1000, seed: int = 0
) -> TemporalScore:
    """Return the mean of `temporal_f1` with its interval."""
    each = temporal_f1(hypotheses, references)
    mentioned = sum(bool(temporal_entities(text)) for text in references)
    return TemporalScore(float(each.mean()), mean_interval(each, resamples=resamples, seed=seed), mentioned)

"""SeverityReader: reads out of a report how severe each positive finding is, by words and the rule-based labeler's mentions."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from diffrgen.labels.findings import FINDINGS, Severity, State
from diffrgen.labels.rules import Mention, RuleLabeler
from diffrgen.labels.sentences import split_sentences
from diffrgen.labels.words import SEVERITY_WORDS

_SEVERITY_OF = {word: severity for severity, words in SEVERITY_WORDS.items() for word in words}
_WORD = re.compile(r"[a-z]+")
_JOINT = re.compile(r"\b(?:and|with|but)\b|,")
# A severity behind its finding ("the effusion is small") counts as so many characters further away than one before it, and
# so does each joint ("and", a comma) between them.
_BEHIND, _ACROSS = 6, 20


class SeverityReader:
    """Callable that gives the severity of each finding; remembers the sentences it has read.

    Each word of `SEVERITY_WORDS` describes the mention of a finding that is nearest to it in its sentence. Of several
    severities of a finding, the highest counts.
    """

    def __init__(self, *, remember: int = 65536) -> None:
        """`remember`: so many distinct sentences are kept with their severities."""
        self._labeler = RuleLabeler(remember=0)
        self._read = lru_cache(maxsize=remember)(self._read_sentence)

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Return the severities of `FINDINGS` in each text, (len(texts), 14) int64, values of `Severity`.

        Raises ValueError for a single string.
        """
        if isinstance(texts, str):
            raise ValueError("expected a list of report texts, got one string: put it into a list")
        severities = np.full((len(texts), len(FINDINGS)), Severity.UNSTATED, dtype=np.int64)
        for row, text in zip(severities, texts, strict=True):
            for sentence in split_sentences(text):
                for finding, severity in self._read(sentence):
                    row[finding] = max(row[finding], severity)
        return severities

    def _read_sentence(self, sentence: str) -> tuple[tuple[int, Severity], ...]:
        """Return (finding, severity) for every severity that one sentence states of a positive finding."""
        stated = [(match.span(), _SEVERITY_OF[match[0]]) for match in _WORD.finditer(sentence) if match[0] in _SEVERITY_OF]
        mentions = [mention for mention in self._labeler.mentions(sentence) if mention.finding < len(FINDINGS)] if stated else []
        found = []
        for word, severity in stated:
            distances = [_distance(sentence, word, mention) for mention in mentions]
            nearest = min(distances, default=0)
            found += [
                (mention.finding, severity)
                for mention, distance in zip(mentions, distances, strict=True)
                if distance == nearest and mention.state is State.POSITIVE
            ]
        return tuple(found)


def _distance(sentence: str, word: tuple[int, int], mention: Mention) -> int:
    """Return how far a word is from a mention, in characters; 0 within it."""
    start, end = word
    if start >= mention.start and end <= mention.end:
        return 0
    before = end <= mention.start
    between = sentence[end : mention.start] if before else sentence[mention.end : start]
    return len(between) + _ACROSS * len(_JOINT.findall(between)) + (0 if before else _BEHIND)

"""RuleLabeler: reads the 14 findings out of a report by phrase tables and the scope of negation and doubt.

The conventions are CheXpert's (Irvin 2019): a finding is positive if any mention is, else uncertain if any is,
else negative if any is, else blank. The tables under `phrases/` are this project's own.

NOTE: where annotators differ, the tables hold that "borderline cardiomegaly", "probable" and "likely" are positive,
vascular congestion (edema) and a blunted costophrenic angle (effusion) uncertain, "upper limits of normal" negative.
"A or B" and "borderline heart size" are uncertain in CheXpert's rules and indexed at Open-i: see `Convention`. A
nodular opacity and a calcified nodule are lung lesions. A granuloma is none of the 14, and only forbids "no finding":
neither CheXpert's labels nor Open-i's indexing count it as a lesion or nodule.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np

from diffrgen.labels.findings import FINDINGS, NO_FINDING, State
from diffrgen.labels.patterns import compile_groups, read_table
from diffrgen.labels.scope import ScopeRules
from diffrgen.labels.sentences import split_sentences

# The phrase table's group of abnormalities outside the 14 findings: a mention only excludes "no finding".
_OTHER = "other"
Convention = Literal["chexpert", "openi"]
_UNDECIDED: dict[Convention, State] = {"chexpert": State.UNCERTAIN, "openi": State.POSITIVE}
# Rank of the states: a report that mentions a finding more than once keeps the highest.
_RANK = {State.BLANK: 0, State.NEGATIVE: 1, State.UNCERTAIN: 2, State.POSITIVE: 3}
_PRESENT = (State.POSITIVE, State.UNCERTAIN)


class Mention(NamedTuple):
    """A finding in a sentence: its number (14: an abnormality outside FINDINGS), its first character, its end, its state."""

    finding: int
    start: int
    end: int
    state: State


class RuleLabeler:
    """Callable of the protocol `Labeler`; holds compiled patterns and remembers the sentences it has read."""

    def __init__(self, *, convention: Convention = "chexpert", remember: int = 65536) -> None:
        """`convention`: "chexpert" reads "A or B" and "borderline heart size" as uncertain, "openi" as positive.

        `remember`: so many distinct sentences are kept with their states (reports repeat theirs).
        """
        table = read_table("findings")
        undecided = _UNDECIDED[convention]
        self._fixed = {"negative": State.NEGATIVE, "undecided": undecided}
        self._scope = ScopeRules(choice=undecided)
        self._columns = {name: index for index, name in enumerate(FINDINGS)} | {_OTHER: len(FINDINGS)}
        self._patterns = {
            name: compile_groups({group: table[name].get(group, []) for group in table["groups"]}, self._scope.gaps)
            for name in self._columns
            if name in table
        }
        self.mentions = lru_cache(maxsize=remember)(self._mentions)

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Return the states of `FINDINGS` in each text, (len(texts), 14) int64.

        "no finding" is positive where no other finding, support devices apart, nor another abnormality is positive or
        uncertain, and else blank; so it is for a text without a word. Raises ValueError for a single string.
        """
        if isinstance(texts, str):
            raise ValueError("expected a list of report texts, got one string: put it into a list")
        return np.array([self._label(text) for text in texts], dtype=np.int64).reshape(len(texts), len(FINDINGS))

    def _label(self, text: str) -> list[int]:
        states = [State.BLANK] * (len(FINDINGS) + 1)
        sentences = split_sentences(text)
        for sentence in sentences:
            for mention in self.mentions(sentence):
                states[mention.finding] = max(states[mention.finding], mention.state, key=_RANK.__getitem__)
        device = FINDINGS.index("support devices")
        abnormal = any(state in _PRESENT for column, state in enumerate(states) if column != device)
        states[NO_FINDING] = State.POSITIVE if sentences and not abnormal else State.BLANK
        return [int(state) for state in states[: len(FINDINGS)]]

    def _mentions(self, sentence: str) -> tuple[Mention, ...]:
        """Return every mention in one sentence."""
        found: list[Mention] = []
        mentions: list[tuple[int, str, tuple[int, int]]] = []
        for name, pattern in self._patterns.items():
            column = self._columns[name]
            for match in pattern.finditer(sentence):
                group = match.lastgroup or ""
                if group in self._fixed:
                    found.append(Mention(column, *match.span(), self._fixed[group]))
                elif group in ("mention", "weak"):
                    mentions.append((column, group, match.span()))
        states = self._scope.states(sentence, [span for _, _, span in mentions])
        for (column, group, span), state in zip(mentions, states, strict=True):
            # A weak sign is uncertain at most.
            weakened = group == "weak" and state is State.POSITIVE
            found.append(Mention(column, *span, State.UNCERTAIN if weakened else state))
        return tuple(found)

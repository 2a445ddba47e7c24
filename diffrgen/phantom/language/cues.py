"""Read a sentence that is no wording by its cues: words of denial, doubt and change about noun phrases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from diffrgen.labels.findings import State
from diffrgen.phantom.language.codebook import Codebook
from diffrgen.phantom.language.lexicon import PHRASE_MARK
from diffrgen.phantom.language.mention import Mention, trim
from diffrgen.phantom.patients.states import Change

END_OF_DENIAL = frozenset({"but", "however", "with", "although"})
# The first change with a cue in a sentence is the change of that sentence.
CHANGES: tuple[Change, ...] = ("resolved", "new", "increased", "decreased", "unchanged")
Tokens = tuple[str, ...]


def read_cues(tokens: Tokens, phrases: Sequence[Mention], book: Codebook) -> tuple[Mention, ...]:
    """Return `phrases`, the mentions that the phrase marks in `tokens` stand for, with state and change by cues."""
    change = next((name for name in CHANGES if _any(tokens, book.cues[name])), None)
    tokens = _erase(tokens, book.cues["not_negative"])
    uncertain = _any(tokens, book.cues["uncertain"])
    gone = _any(tokens, book.cues["after_negative"])
    mentions: list[Mention] = []
    denied = False
    for position, token in enumerate(tokens):
        if token in END_OF_DENIAL:
            denied = False
        denied = denied or _cue_at(tokens, position, book.cues["negative"]) is not None
        if token != PHRASE_MARK:
            continue
        state = State.NEGATIVE if denied or gone else State.UNCERTAIN if uncertain else State.POSITIVE
        stated = change if (change == "resolved") == (state == State.NEGATIVE) else None
        mentions.append(trim(replace(phrases[len(mentions)], state=state, change=stated)))
    return tuple(mentions)


def _cue_at(tokens: Tokens, position: int, cues: Sequence[Tokens]) -> Tokens | None:
    return next((cue for cue in cues if tokens[position : position + len(cue)] == cue), None)


def _any(tokens: Tokens, cues: Sequence[Tokens]) -> bool:
    return any(_cue_at(tokens, start, cues) is not None for start in range(len(tokens)))


def _erase(tokens: Tokens, cues: Sequence[Tokens]) -> Tokens:
    kept, position = [], 0
    while position < len(tokens):
        cue = _cue_at(tokens, position, cues)
        if cue is None:
            kept.append(tokens[position])
        position += len(cue or (tokens[position],))
    return tuple(kept)

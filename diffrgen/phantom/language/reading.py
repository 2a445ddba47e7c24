"""Parses one sentence: as a complete wording, as a frame with noun phrases, clause by clause, or by cues."""

from __future__ import annotations

from dataclasses import dataclass, replace

from diffrgen.labels.findings import State
from diffrgen.phantom.language.codebook import Codebook, Frame, Sense, load_codebook
from diffrgen.phantom.language.cues import read_cues
from diffrgen.phantom.language.lexicon import LIST_MARK, PHRASE_MARK, PLACE_MARK, SEVERITY_MARK, Skeleton, tokenise
from diffrgen.phantom.language.mention import Mention, trim
from diffrgen.phantom.language.near import shortened
from diffrgen.phantom.patients.states import Change

SPLITTERS = frozenset({"and", "but", "with", "while", "although", "however"})
JOINTS = frozenset({"or", "nor"})
# Limits of the search for parts, so that its time does not grow with the text: no wording with a list and a tail is longer
# than a clause, and longer sentences are parsed by cues alone.
MOST_CLAUSE_WORDS, MOST_WORDS = 48, 160
# The mentions from each position to the end; None: the rest cannot be parsed.
Rests = dict[int, tuple[Mention, ...] | None]


@dataclass(frozen=True, slots=True)
class SentenceReading:
    """The content of a sentence; `exact` if the complete sentence is one of the grammar's wordings."""

    mentions: tuple[Mention, ...]
    exact: bool


@dataclass(frozen=True, slots=True)
class Reduced:
    """A skeleton whose noun phrases are marks too; `mentions` holds one of unknown state for each."""

    tokens: tuple[str, ...]
    mentions: tuple[Mention, ...]


def read_sentence(sentence: str) -> SentenceReading:
    """Return the content of `sentence` (no full stop)."""
    book = load_codebook()
    skeleton = book.reader(tokenise(sentence))
    exact = _read_exact(skeleton, book)
    if exact is not None:
        return SentenceReading(exact, True)
    for read in (_read_clauses, _read_near):
        mentions = read(skeleton, book)
        if mentions is not None:
            return SentenceReading(mentions, False)
    reduced = _reduce(skeleton, book)
    return SentenceReading(read_cues(reduced.tokens, reduced.mentions, book), False)


def _read_exact(skeleton: Skeleton, book: Codebook) -> tuple[Mention, ...] | None:
    for body, change in _bodies(skeleton.tokens, book):
        cut = Skeleton(body, skeleton.severities, skeleton.places)
        sense = book.sentences.get(body)
        if sense is not None:
            return _whole(sense, cut, change)
        reduced = _reduce(cut, book)
        frame = book.frames.get(reduced.tokens) or book.frames.get(_fold(reduced.tokens))
        if frame is not None:
            return tuple(_settle(mention, frame, change) for mention in reduced.mentions)
    return None


def _bodies(tokens: tuple[str, ...], book: Codebook) -> list[tuple[tuple[str, ...], Change | None]]:
    bodies: list[tuple[tuple[str, ...], Change | None]] = [(tokens, None)]
    for tail, change in book.tails:
        if len(tail) < len(tokens) and tokens[-len(tail) :] == tail:
            bodies.append((tokens[: -len(tail)], change))
    return bodies


def _whole(sense: Sense, skeleton: Skeleton, change: Change | None) -> tuple[Mention, ...]:
    severity = skeleton.severities[0] if skeleton.severities else None
    side, zone = skeleton.places[0] if skeleton.places else (None, None)
    return tuple(
        trim(Mention(name, sense.state, severity, side, zone, sense.change or change, sense.device))
        for name in sense.findings
    )


def _settle(mention: Mention, frame: Frame, change: Change | None) -> Mention:
    return trim(replace(mention, state=frame.state, change=frame.change or change))


def _reduce(skeleton: Skeleton, book: Codebook) -> Reduced:
    tokens, mentions = [], []
    severity_at = place_at = position = 0
    while position < len(skeleton.tokens):
        found = book.phrases.longest(skeleton.tokens, position)
        end = found[0] if found else position + 1
        span = skeleton.tokens[position:end]
        severities, places = span.count(SEVERITY_MARK), span.count(PLACE_MARK)
        if found:
            severity = skeleton.severities[severity_at] if severities else None
            side, zone = skeleton.places[place_at] if places else (None, None)
            mentions.append(Mention(found[1], State.BLANK, severity, side, zone))
            tokens.append(PHRASE_MARK)
        else:
            tokens.extend(span)
        severity_at, place_at, position = severity_at + severities, place_at + places, end
    return Reduced(tuple(tokens), tuple(mentions))


def _fold(tokens: tuple[str, ...]) -> tuple[str, ...]:
    """Return `tokens` with each "phrase phrase or phrase" as one list mark."""
    folded: list[str] = []
    for token in tokens:
        if token == PHRASE_MARK:
            joint = len(folded) > 1 and folded[-1] in JOINTS
            before = folded[-2 if joint else -1 :][:1]
            if before and before[0] in (PHRASE_MARK, LIST_MARK):
                folded[-2 if joint else -1 :] = [LIST_MARK]
                continue
        folded.append(token)
    return tuple(folded)


def _read_clauses(skeleton: Skeleton, book: Codebook) -> tuple[Mention, ...] | None:
    """Read a sentence that splits into parts of which each is a wording, or None."""
    return None if len(skeleton.tokens) > MOST_WORDS else _split(skeleton, 0, book, {})


def _split(skeleton: Skeleton, start: int, book: Codebook, known: Rests) -> tuple[Mention, ...] | None:
    """Read the tokens from `start` on as a first part, the shortest that leaves a rest that can be read, and that rest."""
    count = len(skeleton.tokens)
    for position in range(start + 1, min(start + MOST_CLAUSE_WORDS + 1, count)):
        left = _read_exact(_slice(skeleton, start, position), book)
        if left is None:
            continue
        right = _read_rest(skeleton, position + (skeleton.tokens[position] in SPLITTERS), book, known)
        if right is not None:
            return (*left, *right)
    return None


def _read_rest(skeleton: Skeleton, start: int, book: Codebook, known: Rests) -> tuple[Mention, ...] | None:
    """Read the tokens from `start` on, as one wording or else split; each rest once, wherever it was split off."""
    if start not in known:
        whole = _read_exact(_slice(skeleton, start, len(skeleton.tokens)), book)
        known[start] = whole if whole is not None else _split(skeleton, start, book, known)
    return known[start]


def _read_near(skeleton: Skeleton, book: Codebook) -> tuple[Mention, ...] | None:
    """Parse a sentence that differs from a complete wording in one word; None if there is no such wording."""
    for body, change in _bodies(skeleton.tokens, book):
        if len(body) > MOST_CLAUSE_WORDS:
            continue
        sense = book.near.get(body)
        if sense is None:
            sense = next((book.sentences[near] for near in shortened(body) if near in book.sentences), None)
        if sense is not None:
            return _whole(sense, skeleton, change)
    return None


def _slice(skeleton: Skeleton, start: int, stop: int) -> Skeleton:
    before, inside = skeleton.tokens[:start], skeleton.tokens[start:stop]
    first_severity, first_place = before.count(SEVERITY_MARK), before.count(PLACE_MARK)
    return Skeleton(
        inside,
        skeleton.severities[first_severity : first_severity + inside.count(SEVERITY_MARK)],
        skeleton.places[first_place : first_place + inside.count(PLACE_MARK)],
    )

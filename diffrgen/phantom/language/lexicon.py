"""Turn sentences into skeletons: words without articles, slots as marks; and a trie for the longest match."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from diffrgen.phantom.language.wordings import PLACE_SLOTS, SEVERITY_SLOTS, SIDE_SLOTS, Wordings, read_location
from diffrgen.phantom.patients.states import Severity, Side, Zone

SEVERITY_MARK, PLACE_MARK, PHRASE_MARK, LIST_MARK, NUMBER_MARK = (
    "<severity>",
    "<place>",
    "<phrase>",
    "<list>",
    "<number>",
)
_TOKEN = re.compile(r"<[a-z]+>|[a-z]+|\d+")
_ARTICLES = frozenset({"a", "an", "the"})
_SINGULAR: Mapping[str, str] = {"are": "is", "were": "was", "have": "has", "show": "shows"}
Payload = TypeVar("Payload")


def tokenise(text: str) -> list[str]:
    """Return lower-case words: no articles or commas, hyphens split, verbs singular, numbers as one mark."""
    tokens = []
    for token in _TOKEN.findall(text.lower()):
        if token in _ARTICLES:
            continue
        tokens.append(NUMBER_MARK if token[0].isdigit() else _SINGULAR.get(token, token))
    return tokens


@dataclass(slots=True)
class Trie(Generic[Payload]):
    """Token sequences with a payload each; finds the longest that starts at a position."""

    children: dict[str, Trie[Payload]] = field(default_factory=dict)
    payload: Payload | None = None

    def add(self, tokens: Sequence[str], payload: Payload) -> None:
        """Store `payload` under `tokens`; the first of two equal sequences stays."""
        node = self
        for token in tokens:
            node = node.children.setdefault(token, Trie())
        if node.payload is None:
            node.payload = payload

    def longest(self, tokens: Sequence[str], start: int) -> tuple[int, Payload] | None:
        """Return (end, payload) of the longest stored sequence at `start`, or None."""
        node, best = self, None
        for position in range(start, len(tokens)):
            following = node.children.get(tokens[position])
            if following is None:
                break
            node = following
            if node.payload is not None:
                best = position + 1, node.payload
        return best


@dataclass(frozen=True, slots=True)
class Skeleton:
    """A sentence with marks for severities and places, and what each mark stood for, in order."""

    tokens: tuple[str, ...]
    severities: tuple[Severity, ...]
    places: tuple[tuple[Side, Zone | None], ...]


class SlotReader:
    """Replaces the words of `slots.json` by marks."""

    def __init__(self, words: Wordings) -> None:
        self._trie: Trie[tuple[str, object]] = Trie()
        for slot in SEVERITY_SLOTS:
            for value, phrases in words.slots[slot].items():
                for phrase in phrases:
                    self._trie.add(tokenise(phrase), (SEVERITY_MARK, value))
        for slot in (*SIDE_SLOTS, *PLACE_SLOTS):
            for value, phrases in words.slots[slot].items():
                for phrase in phrases:
                    self._trie.add(tokenise(phrase), (PLACE_MARK, read_location(value)))

    def __call__(self, tokens: Sequence[str]) -> Skeleton:
        """Return the skeleton of `tokens`."""
        reduced: list[str] = []
        values: dict[str, list[object]] = {SEVERITY_MARK: [], PLACE_MARK: []}
        position = 0
        while position < len(tokens):
            found = self._trie.longest(tokens, position)
            if found is None:
                reduced.append(tokens[position])
                position += 1
                continue
            position, (mark, value) = found
            reduced.append(mark)
            values[mark].append(value)
        return Skeleton(tuple(reduced), tuple(values[SEVERITY_MARK]), tuple(values[PLACE_MARK]))  # type: ignore[arg-type]


def template_tokens(text: str, reader: SlotReader) -> list[tuple[str, ...]]:
    """Return the skeletons of a wording, singular and plural, its slots as marks."""
    for slot in SEVERITY_SLOTS:
        text = text.replace(f"{{{slot}}}", SEVERITY_MARK)
    for slot in (*SIDE_SLOTS, *PLACE_SLOTS):
        text = text.replace(f"{{{slot}}}", PLACE_MARK)
    text = re.sub(r"\{(is|has|shows)\w*\}", r"\1", text)
    forms = dict.fromkeys((text.replace("[s]", ""), text.replace("[s]", "s")))
    return [reader(tokenise(form)).tokens for form in forms]

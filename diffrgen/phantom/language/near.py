"""Wordings with one word missing or one too many, as a language model may write them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

Tokens = tuple[str, ...]
Meaning = TypeVar("Meaning")
# Words that cannot be dropped: without one, a wording would reverse or lose its meaning.
DECISIVE = frozenset(
    [
        *("no", "not", "without", "nothing", "may", "could", "possible", "possibly", "borderline", "limits"),
        *("normal", "free", "clear", "sharp", "intact", "removed"),
    ]
)
SHORTEST = 4


def shortened(tokens: Tokens) -> list[Tokens]:
    """Return `tokens` less one word each, decisive words kept."""
    return [tokens[:i] + tokens[i + 1 :] for i, token in enumerate(tokens) if token not in DECISIVE]


def near_wordings(wordings: Mapping[Tokens, Meaning]) -> dict[Tokens, Meaning]:
    """Return what each wording less one word means, where just one meaning is left."""
    found: dict[Tokens, Meaning] = {}
    unclear: set[Tokens] = set()
    for tokens, meaning in wordings.items():
        if len(tokens) < SHORTEST:
            continue
        for variant in shortened(tokens):
            if variant in wordings or found.setdefault(variant, meaning) != meaning:
                unclear.add(variant)
    return {tokens: meaning for tokens, meaning in found.items() if tokens not in unclear}

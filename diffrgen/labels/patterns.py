"""The small language of the phrase tables, and its translation to regular expressions.

A phrase is words between blanks, matched against the tokens of `diffrgen.labels.sentences`:

    word        this word                     heart|cardiac   one of these words
    opacit*     any word that starts so       pleural?        the word or nothing
    ...         up to six words of any kind   ~               up to sixteen words of the table's `filler` list

A `...` never runs over a word that ends a clause.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

_WORD = re.compile(r"(?:[a-z0-9,/:']+\*?)(?:\|[a-z0-9,/:']+\*?)*\??")


@dataclass(frozen=True, slots=True)
class Gaps:
    """The words that `~` may run over, and those that `...` may not."""

    filler: tuple[str, ...]
    barrier: tuple[str, ...]


def read_table(name: str) -> dict[str, Any]:
    """Return the phrase table `name` (a JSON object) of this package."""
    return json.loads(files("diffrgen.labels").joinpath("phrases", f"{name}.json").read_text(encoding="utf-8"))


def compile_groups(groups: Mapping[str, Sequence[str]], gaps: Gaps) -> re.Pattern[str]:
    """Return one pattern whose `lastgroup` names the group of the phrase that matched; the first group wins a tie.

    Raises:
        ValueError: a phrase is not of the language above.
    """
    named = [
        f"(?P<{name}>" + "|".join(translate(phrase, gaps) for phrase in phrases) + ")"
        for name, phrases in groups.items()
        if phrases
    ]
    return re.compile(r"(?<!\S)(?:" + "|".join(named) + r")(?!\S)")


def translate(phrase: str, gaps: Gaps) -> str:
    """Return the regular expression of one phrase, without its word boundaries."""
    barrier = "|".join(map(re.escape, gaps.barrier))
    filler = "|".join(map(re.escape, gaps.filler))
    parts: list[str] = []
    for word in phrase.split():
        if word == "...":
            parts.append(rf"(?:(?!(?:{barrier}) )\S+ ){{0,6}}?")
        elif word == "~":
            parts.append(rf"(?:(?:{filler}) ){{0,16}}?")
        elif _WORD.fullmatch(word):
            choices = word.removesuffix("?").replace("*", r"[^\s,]*")
            parts.append(f"(?:(?:{choices}) )?" if word.endswith("?") else f"(?:{choices}) ")
        else:
            raise ValueError(f"expected words, |, *, ?, ... or ~ in a phrase, got {word!r} in {phrase!r}")
    # The last word is mandatory and its blank belongs to the text after it.
    if not parts or parts[-1].endswith("?"):
        raise ValueError(f"expected a phrase to end in a word that is not optional, got {phrase!r}")
    return "".join(parts).removesuffix(" ")

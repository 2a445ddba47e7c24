"""Preprocessing protocols: the text forms on which published scores were computed, by name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, get_args

from diffrgen.text.cleaning import Rules, clean_report

Protocol = Literal["promptmrg", "r2gen-mimic", "r2gen-iu", "raw"]
PROTOCOLS: tuple[Protocol, ...] = get_args(Protocol)
UNKNOWN = "<unk>"


@dataclass(frozen=True)
class Preprocessing:
    """rules: cleaning of both sides. words: length that references are cut to; least: a training word's least count."""

    rules: Rules
    words: int | None = None
    least: int | None = None
    space_periods: bool = False


PREPROCESSINGS = MappingProxyType(
    {
        # every data set with the MIMIC rules; hypotheses are an uncased decoder's text, whose periods are set apart
        "promptmrg": Preprocessing("mimic", words=100, space_periods=True),
        # lengths 100 and 60 count the start token; rare training words are unknown to R2Gen's tokenizer
        "r2gen-mimic": Preprocessing("mimic", words=99, least=10),
        "r2gen-iu": Preprocessing("iu", words=59, least=3),
        "raw": Preprocessing("plain"),
    }
)


def apply_protocol(
    protocol: Protocol,
    hypotheses: Sequence[str],
    references: Sequence[str],
    *,
    training: Iterable[str] | None = None,
) -> tuple[list[str], list[str]]:
    """Return hypotheses and references as the protocol scores them.

    - promptmrg: references by the MIMIC rules, cut at 100 words; hypotheses in lower case, periods set apart.
    - r2gen-mimic, r2gen-iu: both sides by the rules of that data set; references cut at 99 or 59 words, and
      their words that occur fewer than 10 or 3 times in `training` replaced by <unk>.
    - raw: white space normalised, nothing else.

    training: reports of the training split, raw; needed by the r2gen protocols, not used by the others.

    Raises:
        ValueError: the protocol is unknown, or an r2gen protocol has no training reports.

    >>> apply_protocol("promptmrg", ["the heart is large. no effusion."], ["1. The heart is LARGE."])
    (['the heart is large . no effusion .'], ['the heart is large .'])
    """
    if protocol not in PROTOCOLS:
        raise ValueError(f"expected a protocol out of {', '.join(PROTOCOLS)}, got {protocol!r}")
    preprocessing = PREPROCESSINGS[protocol]
    generated = [" ".join(_hypothesis(text, preprocessing).split()) for text in hypotheses]
    vocabulary = _vocabulary(protocol, preprocessing, training)
    return generated, [_reference(text, preprocessing, vocabulary) for text in references]


def _hypothesis(text: str, preprocessing: Preprocessing) -> str:
    if preprocessing.space_periods:
        return text.lower().replace(".", " . ")
    return clean_report(text, rules=preprocessing.rules)


def _reference(text: str, preprocessing: Preprocessing, vocabulary: frozenset[str] | None) -> str:
    words = clean_report(text, rules=preprocessing.rules).split()[: preprocessing.words]
    return " ".join(word if vocabulary is None or word in vocabulary else UNKNOWN for word in words)


def _vocabulary(protocol: Protocol, preprocessing: Preprocessing, training: Iterable[str] | None) -> frozenset[str] | None:
    """The words that R2Gen's tokenizer knows, or None if every word counts."""
    if preprocessing.least is None:
        return None
    if training is None:
        raise ValueError(f"protocol {protocol!r} needs the training reports, whose rare words it takes as {UNKNOWN}")
    counts = Counter(word for report in training for word in clean_report(report, rules=preprocessing.rules).split())
    return frozenset(word for word, count in counts.items() if count >= preprocessing.least)

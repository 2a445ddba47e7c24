"""A generated report sentence by sentence: the tokens of each, and which retrieved reports say it word for word."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from transformers import PreTrainedTokenizerFast

from diffrgen.explanation.attention import AttentionShares
from diffrgen.text import decode_report, report_sentences

ENDS = (".", "!", "?")
_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class ReportSentence:
    """One sentence of the generated report.

    heat (V, gh, gw) float32, a grid a view, sums to 1: where in the images the attention to patches went while it was
    written; shares: how much of all attention that was; shared_with: positions in `neighbours` of the reports that hold
    the sentence.
    """

    text: str
    heat: np.ndarray = field(repr=False)
    shares: AttentionShares
    shared_with: tuple[int, ...]


@dataclass(frozen=True)
class ToldSentence:
    """A sentence of a retrieved or an earlier report; shared: whether the generated report says it, word for word."""

    text: str
    shared: bool


def token_spans(tokenizer: PreTrainedTokenizerFast, ids: Sequence[int]) -> list[tuple[int, int]]:
    """Return [start, end) of the tokens of each sentence in `ids`, which end before the end token or padding.

    A sentence ends after a token that ends in a stop, unless a digit follows it and another comes before.
    """
    end_ids = {tokenizer.sep_token_id, tokenizer.pad_token_id}
    length = next((place for place, token in enumerate(ids) if token in end_ids), len(ids))
    tokens = tokenizer.convert_ids_to_tokens(list(ids[:length]))
    spans, start = [], 0
    for place, token in enumerate(tokens):
        before, after = tokens[place - 1] if place else "", tokens[place + 1] if place + 1 < length else ""
        in_number = before[-1:].isdigit() and after.removeprefix("##")[:1].isdigit()
        if token.endswith(ENDS) and not in_number:
            spans.append((start, place + 1))
            start = place + 1
    if start < length:
        spans.append((start, length))
    return [(a, b) for a, b in spans if _WORD.search(decode_report(tokenizer, ids[a:b]))]


def same_words(sentence: str) -> tuple[str, ...]:
    """Return what two sentences that say the same have in common: the words in order, whatever case and spacing.

    Nothing looser counts as shared: "no effusion" and "effusion" have nearly all words in common.
    """
    return tuple(_WORD.findall(sentence.lower()))


def mark_shared(report: str, told: Iterable[str]) -> tuple[ToldSentence, ...]:
    """Cut another report into its sentences and mark those that are among the sentences `told`."""
    own = {same_words(sentence) for sentence in told}
    return tuple(ToldSentence(text, same_words(text) in own) for text in report_sentences(report))

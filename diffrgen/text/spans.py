"""The sentences of a generated report as spans of its tokens, and the equality of two sentences."""

from __future__ import annotations

import re
from collections.abc import Sequence

from transformers import PreTrainedTokenizerFast

from diffrgen.text.decoding import decode_report
from diffrgen.text.vocabulary import IMPRESSION_TOKEN

ENDS = (".", "!", "?")
_WORD = re.compile(r"\w+")


def token_spans(tokenizer: PreTrainedTokenizerFast, ids: Sequence[int]) -> list[tuple[int, int]]:
    """Return [start, end) of the tokens of each sentence in `ids`, which end before the end token or padding.

    A sentence ends after a token that ends in a stop, unless a digit follows it and another comes before, and before the
    token that begins an impression, which belongs to none.
    """
    end_ids = {tokenizer.sep_token_id, tokenizer.pad_token_id}
    length = next((place for place, token in enumerate(ids) if token in end_ids), len(ids))
    tokens = tokenizer.convert_ids_to_tokens(list(ids[:length]))
    spans, start = [], 0
    for place, token in enumerate(tokens):
        before, after = tokens[place - 1] if place else "", tokens[place + 1] if place + 1 < length else ""
        if token == IMPRESSION_TOKEN:
            spans.append((start, place))
            start = place + 1
            continue
        in_number = before[-1:].isdigit() and after.removeprefix("##")[:1].isdigit()
        if token.endswith(ENDS) and not in_number:
            spans.append((start, place + 1))
            start = place + 1
    if start < length:
        spans.append((start, length))
    return [(a, b) for a, b in spans if _WORD.search(decode_report(tokenizer, ids[a:b]))]


def same_words(sentence: str) -> tuple[str, ...]:
    """Return a normal form of a sentence, equal for equal sentences: the words in order, regardless of case and spacing.

    Nothing looser counts as shared: "no effusion" and "effusion" have nearly all words in common.
    """
    return tuple(_WORD.findall(sentence.lower()))

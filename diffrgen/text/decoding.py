"""Token ids back to a report, spaced as `clean_report` writes it."""

from __future__ import annotations

import re
from collections.abc import Iterable

from torch import Tensor
from transformers import PreTrainedTokenizerFast

SPACED_HYPHEN = re.compile(r"(?<=\w) - (?=\w)")


def decode_report(tokenizer: PreTrainedTokenizerFast, ids: Iterable[int] | Tensor) -> str:
    """Return the text of `ids` (a sequence or a 1-D tensor) without special tokens, [UNK] excepted.

    decode_report(tokenizer, tokenizer(text).input_ids) == text for every cleaned `text` without unknown
    words, if the tokenizer splits at white space only, as `train_tokenizer`'s does (texts of any rules are
    restored, "plain" included).

    A BERT vocabulary splits at every punctuation mark. Then the hyphen is closed up between letters or digits
    ("x - ray" -> "x-ray"), which restores every IU X-Ray report; a hyphen that stood alone between two words
    is closed up, too, and the other marks stay apart ("clear ." for "clear.").

    [UNK] stays because a word stood there: "no [UNK] is seen" must not read "no is seen".
    """
    numbers = ids.tolist() if isinstance(ids, Tensor) else list(ids)
    dropped = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    kept = [number for number in numbers if number not in dropped]
    text = tokenizer.backend_tokenizer.decode(kept, skip_special_tokens=False)
    return SPACED_HYPHEN.sub("-", text) if _splits_hyphens(tokenizer) else text


def _splits_hyphens(tokenizer: PreTrainedTokenizerFast) -> bool:
    splitter = tokenizer.backend_tokenizer.pre_tokenizer
    return splitter is not None and len(splitter.pre_tokenize_str("a-b")) > 1

"""Findings and impression as one sequence of tokens, with a token between them that a network learns to generate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from transformers import PreTrainedTokenizerFast

from diffrgen.text.cleaning import Rules, clean_report
from diffrgen.text.decoding import decode_report
from diffrgen.text.vocabulary import IMPRESSION_TOKEN


class ReportSections(NamedTuple):
    """The two sections of a report; "" if one is missing."""

    findings: str
    impression: str

    @property
    def text(self) -> str:
        """The findings, then the impression.

        >>> ReportSections("Clear lungs", "No acute disease.").text
        'Clear lungs. No acute disease.'
        """
        findings, impression = (section.strip() for section in self)
        if findings and impression and not findings.endswith((".", "!", "?")):
            findings += "."
        return " ".join(filter(None, (findings, impression)))

    def cleaned(self, rules: Rules) -> ReportSections:
        """Return each section by `clean_report`."""
        return ReportSections(*(clean_report(section, rules=rules) for section in self))


def section_ids(tokenizer: PreTrainedTokenizerFast, sections: ReportSections) -> list[int]:
    """Return the tokens of cleaned sections: findings, the token that begins the impression, impression."""
    findings, impression = tokenizer(list(sections), add_special_tokens=False).input_ids
    return [*findings, tokenizer.convert_tokens_to_ids(IMPRESSION_TOKEN), *impression]


def split_sections(tokenizer: PreTrainedTokenizerFast, ids: Sequence[int]) -> ReportSections | None:
    """Return the sections of generated ids, the impression from the first token on that begins one; without that token all
    is findings. None for the tokenizer of a run that writes one text.
    """
    begin = impression_id(tokenizer)
    if begin is None:
        return None
    ids = list(ids)
    place = ids.index(begin) if begin in ids else len(ids)
    return ReportSections(decode_report(tokenizer, ids[:place]), decode_report(tokenizer, ids[place:]))


def impression_id(tokenizer: PreTrainedTokenizerFast) -> int | None:
    """Return the token that begins an impression, None if the tokenizer has none."""
    return tokenizer.backend_tokenizer.token_to_id(IMPRESSION_TOKEN)


def with_impression_token(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """Return `tokenizer` with the token that begins an impression, after all others."""
    tokenizer.add_special_tokens({"extra_special_tokens": [IMPRESSION_TOKEN]}, replace_extra_special_tokens=False)
    return tokenizer

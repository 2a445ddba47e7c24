"""Report texts: cleaned by the field's rules, turned into tokens and back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diffrgen.lazy import on_first_use
from diffrgen.text.printable import printable, printable_lines

if TYPE_CHECKING:
    from diffrgen.text.cleaning import RULES, Rules, choose_rules, clean_report
    from diffrgen.text.decoding import decode_report
    from diffrgen.text.loading import load_tokenizer
    from diffrgen.text.protocol import PROTOCOLS, Protocol, apply_protocol
    from diffrgen.text.sections import ReportSections, section_ids, split_sections, with_impression_token
    from diffrgen.text.sentences import report_sentences
    from diffrgen.text.spans import same_words, token_spans
    from diffrgen.text.vocabulary import PRIOR_PROMPT_TOKENS, PROMPT_TOKENS, train_tokenizer

__all__ = [
    "PRIOR_PROMPT_TOKENS",
    "PROMPT_TOKENS",
    "PROTOCOLS",
    "RULES",
    "Protocol",
    "ReportSections",
    "Rules",
    "apply_protocol",
    "choose_rules",
    "clean_report",
    "decode_report",
    "load_tokenizer",
    "printable",
    "printable_lines",
    "report_sentences",
    "same_words",
    "section_ids",
    "split_sections",
    "token_spans",
    "train_tokenizer",
    "with_impression_token",
]

__getattr__ = on_first_use(__name__, __file__)

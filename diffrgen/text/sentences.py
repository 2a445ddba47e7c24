"""The sentences of a cleaned report, in its own words."""

from __future__ import annotations

import re

# A full stop with no white space behind it belongs to a number or a word.
_END = re.compile(r"\.(?:\s+|$)")


def report_sentences(report: str) -> list[str]:
    """Return the sentences of a cleaned report, each with its full stop as a separate word; none is empty.

    >>> report_sentences("the heart is normal . no effusion .")
    ['the heart is normal .', 'no effusion .']
    """
    sentences = (" ".join(part.split()) for part in _END.split(report))
    return [f"{sentence} ." for sentence in sentences if any(map(str.isalnum, sentence))]

"""Report text to sentences of blank-separated lower-case tokens."""

from __future__ import annotations

import re

# A full stop between digits belongs to a number.
_STOPS = re.compile(r"(?<!\d)\.|\.(?!\d)|[!;\n]|\?(?=\s|$)")
_NUMBERING = re.compile(r"(?:^|(?<=\s))\d{1,2}[.)](?=\s)")
_BLANKED = re.compile(r"[-_\"()\[\]{}]+")
_SPACED = re.compile(r"\s*([,/:])\s*")
_LINE = re.compile(r"\s*\n\s*\n\s*")


def split_sentences(text: str) -> list[str]:
    """Return the sentences of `text`: lower case, words one blank apart, `,` `/` `:` words of their own.

    A line break ends a sentence only where a blank line follows: reports are wrapped anywhere.
    """
    flat = _LINE.sub(" . ", text.lower())
    flat = _NUMBERING.sub(" . ", flat.replace("\n", " "))
    flat = _SPACED.sub(r" \1 ", _BLANKED.sub(" ", flat))
    sentences = (" ".join(part.split()) for part in _STOPS.split(flat))
    return [sentence for sentence in sentences if sentence]

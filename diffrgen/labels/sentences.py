"""Report text to sentences of blank-separated lower-case tokens."""

from __future__ import annotations

import re

# A full stop between digits belongs to a number.
_STOPS = re.compile(r"(?<!\d)\.|\.(?!\d)|[!;\n]|\?(?=\s|$)")
_NUMBERING = re.compile(r"(?:^|(?<=\s))\d{1,2}[.)](?=\s)")
_BLANKED = re.compile(r"[-_\"()\[\]{}]+")
_SPACED = re.compile(r"([,/:])")
# Matches only from the first white-space character of a run, so that the time stays linear in the run's length.
_LINE = re.compile(r"(?<!\s)\s*\n\s*\n\s*")
# The longest of 3,000 sentences of IU X-Ray and of 200 clinical notes has 67 words. The time for the mentions and cues of a
# sentence is quadratic in its length, so longer sentences are labeled in pieces.
MOST_WORDS = 200


def split_sentences(text: str) -> list[str]:
    """Return the sentences of `text`: lower case, words one blank apart, `,` `/` `:` words of their own.

    A line break ends a sentence only where a blank line follows: reports are wrapped anywhere. More than MOST_WORDS words
    without an end are as many sentences as that takes.
    """
    flat = _LINE.sub(" . ", text.lower())
    flat = _NUMBERING.sub(" . ", flat.replace("\n", " "))
    flat = _SPACED.sub(r" \1 ", _BLANKED.sub(" ", flat))
    return [
        " ".join(words[start : start + MOST_WORDS])
        for words in map(str.split, _STOPS.split(flat))
        for start in range(0, len(words), MOST_WORDS)
    ]

"""Text of a user's, a file name above all, made fit for a terminal and a file."""

from __future__ import annotations


def printable(text: str) -> str:
    """Return `text` with a replacement mark for each character that a terminal would obey or no encoding can hold.

    >>> printable("chest\\x1b[2J.png")
    'chest\N{REPLACEMENT CHARACTER}[2J.png'
    """
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)


def printable_lines(text: str) -> str:
    """Return `text` made printable line by line: its line feeds stay.

    >>> printable_lines("a\\x1b[2J\\nb")
    'a\N{REPLACEMENT CHARACTER}[2J\\nb'
    """
    return "\n".join(map(printable, text.split("\n")))

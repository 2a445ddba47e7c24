"""Ids as texts: those of numbers that a table program has written as floats join with the integers they were."""

from __future__ import annotations

import re

_FLOAT = re.compile(r"(\d+)\.0+")


def id_text(value: object) -> str | None:
    """Return an id as text, None for what cannot be one.

    pandas turns a column of integers with a gap into floats: 50414267.0 is study 50414267, as a number and as text.

    >>> id_text(7), id_text(7.0), id_text("7.0"), id_text("CXR7.1"), id_text(7.5), id_text(True)
    ('7', '7', '7', 'CXR7.1', None, None)
    """
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        return None
    text = str(value)
    match = _FLOAT.fullmatch(text)
    return match[1] if match else text

"""JSON from users: what Python reads but nothing can write again, that breaks its reader, or that it would lose without a
word, is rejected too.
"""

from __future__ import annotations

import json
import re

# The escape of a surrogate; a pair of them is one character.
SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def parse_json(text: str) -> object:
    """Return the content of `text`.

    Raises:
        ValueError: no JSON (json.JSONDecodeError), nested too deeply, a number of more than 4,300 digits, a key that an
            object holds twice, of which Python keeps the last alone, or a text that holds half a character (an unpaired
            surrogate such as "\\ud800"), which no file can hold.
    """
    try:
        content = json.loads(text, object_pairs_hook=_object)
        if SURROGATE.search(text):
            # An unpaired surrogate raises UnicodeEncodeError, a ValueError that names the character.
            json.dumps(content, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError("values nested too deeply") from None
    return content


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    content: dict[str, object] = {}
    for name, value in pairs:
        if name in content:
            raise ValueError(f"the key {name!r} more than once in an object")
        content[name] = value
    return content

"""The token that a client of the API must know."""

from __future__ import annotations

import hmac
import os

from diffrgen.errors import DataError

VARIABLE = "DIFFRGEN_API_TOKEN"
# 16 random characters of 64 have 96 bits.
LEAST = 16


def read_token() -> str:
    """Return the token in the environment; DataError if it is missing, too short, or invalid in a header."""
    token = os.environ.get(VARIABLE, "")
    needed = f"needed a token of at least {LEAST} characters, ASCII without blanks, in the environment variable {VARIABLE}"
    if len(token) < LEAST:
        raise DataError(f"{needed}, got {f'{len(token)} characters' if token else 'none'}")
    if not all("!" <= character <= "~" for character in token):
        raise DataError(f"{needed}, got other characters")
    return token


def knows_token(authorization: str | None, token: str) -> bool:
    """Return whether the header `Authorization` holds the token, in a time that does not depend on where they differ.

    >>> [knows_token(header, "secret") for header in ("Bearer secret", "bearer secret", "Bearer secreT", "secret", None)]
    [True, True, False, False, False]
    """
    scheme, _, given = (authorization or "").partition(" ")
    return hmac.compare_digest(given.strip().encode(), token.encode()) and scheme.lower() == "bearer"

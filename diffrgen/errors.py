"""The error for a user's input that cannot be used."""

from __future__ import annotations


class DataError(ValueError):
    """A file, record or option from the user cannot be used.

    The message names the file and the record, says what was needed, what came and what to do. Commands print it
    without a traceback and leave with status 2.
    """

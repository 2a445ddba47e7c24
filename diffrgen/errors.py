"""The error for unusable user input."""

from __future__ import annotations


class DataError(ValueError):
    """A file, record or option from the user cannot be used.

    The message names the file and the record, and gives the expected and received value and a remedy. Commands print it
    without a traceback and leave with status 2.
    """

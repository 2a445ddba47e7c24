"""The error for unusable user input, and the reasons that it gives."""

from __future__ import annotations


class DataError(ValueError):
    """A file, record or option from the user cannot be used.

    The message names the file and the record, and gives the expected and received value and a remedy. Commands print it
    without a traceback and leave with status 2.
    """


def reason_of(error: Exception) -> str:
    """Return the message of `error` for a DataError that names the file: that of an OSError without its number and file."""
    return getattr(error, "strerror", None) or str(error)

"""Suppresses pydicom's warnings and log records, because they quote tags such as the patient's name."""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

LOGGERS = ("pydicom", "pydicom.pixels.utils", "pylibjpeg", "libjpeg", "openjpeg")

_lock = threading.Lock()
_readers = 0
_silence = ExitStack()


@contextmanager
def silent_dicom() -> Iterator[None]:
    """Drop warnings and log records while the block runs in any thread.

    Filters of warnings belong to the process: the first reader sets them and the last one takes them back, so that no
    reader ever runs under filters that another has taken back already.
    """
    global _readers
    with _lock:
        if _readers == 0:
            _set()
        _readers += 1
    try:
        yield
    finally:
        with _lock:
            _readers -= 1
            if _readers == 0:
                _silence.close()


def _set() -> None:
    _silence.enter_context(warnings.catch_warnings())
    warnings.simplefilter("ignore")
    for name in LOGGERS:
        logger = logging.getLogger(name)
        logger.addFilter(_drop)
        _silence.callback(logger.removeFilter, _drop)


def _drop(_: logging.LogRecord) -> bool:
    return False

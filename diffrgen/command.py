"""Shared code of the commands: an unusable input ends in one message and status 2, not in a traceback."""

from __future__ import annotations

import errno
import logging
import os
import sys
import warnings
from collections.abc import Callable
from typing import TextIO

from diffrgen.errors import DataError, reason_of
from diffrgen.text import printable, printable_lines

# A full disk, missing permissions, a disk that fails or is removed, invalid paths.
REFUSALS = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EPERM, errno.EROFS),
    *(errno.EIO, errno.ENOTCONN, errno.ESTALE, errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.ELOOP),
)


def run_command(main: Callable[[], int]) -> int:
    """Run `main` and return its exit status: 2 with the message on standard error for a DataError, 130 for Ctrl-C.

    2 as well for a file that the system will not read or write: the disk is full, or its permissions do not allow it.
    What a message quotes of a file is made printable: a terminal obeys none of it.
    141, as in a shell, if the reader of standard output closed it.
    """
    warnings.showwarning = _show_warning
    try:
        return main()
    except DataError as error:
        print(f"error: {printable_lines(str(error))}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        # The reader of the output, such as head, has closed it. Redirect it, so that Python's last flush does not fail.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        # The state of a disk or of its permissions, not of the program.
        if error.errno not in REFUSALS:
            raise
        print(f"error: {printable(_named(error))}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _named(error: OSError) -> str:
    """Return the message of the system with the file."""
    if error.filename is None:
        return reason_of(error)
    return f"{os.fsdecode(error.filename)}: {error.strerror}"


def quieten_libraries() -> None:
    """Have transformers draw no progress bars, and accelerate not report weights that are meant to be shared.

    For a command to call once it has parsed its options, as it imports transformers.
    """
    import transformers

    transformers.utils.logging.disable_progress_bar()
    # It warns of the tied output embeddings at each checkpoint.
    logging.getLogger("accelerate.utils.other").setLevel(logging.ERROR)


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Print a warning as one line, without the place in the code that a user does not need."""
    print(f"warning: {printable_lines(str(message))}", file=file or sys.stderr)

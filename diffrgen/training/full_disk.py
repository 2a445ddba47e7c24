"""A full or read-only disk: one message that lists what was saved, instead of a traceback."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from diffrgen.errors import DataError
from diffrgen.pipeline.run_folder import RunFolder
from diffrgen.training.checkpoints import list_checkpoints

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
NOT_ALLOWED = (errno.EACCES, errno.EPERM, errno.EROFS)
# Messages of C++ and Rust libraries that do not raise OSError: torch, FAISS, and (by error number) safetensors and tokenizers.
WRITERS = ("PytorchStreamWriter", "inline_container", "write error in", "for writing")


@contextmanager
def explained(run: RunFolder) -> Iterator[None]:
    """Within the block, turn the errors of a file that could not be written into a DataError that names the folder."""
    try:
        yield
    except DataError:
        raise
    # The tokenizers library raises bare Exception.
    except Exception as error:
        reason = _reason(error)
        if reason is None:
            raise
        needed, remedy = reason
        raise DataError(f"{run.path}: needed {needed}, got: {error}\n{_kept(run)} {remedy}, then {_advice(run)}.") from error


def _reason(error: Exception) -> tuple[str, str] | None:
    """Return what was needed and what to do about a failed write, None for any other error."""
    full = ("room to write to", "Make room")
    if isinstance(error, OSError):
        if error.errno in NOT_ALLOWED:
            return "files that may be read and written", "See to the permissions or choose another --output"
        return full if error.errno in NO_ROOM else None
    words = str(error)
    by_number = any(f"(os error {number})" in words for number in NO_ROOM)
    return full if by_number or any(writer in words for writer in WRITERS) else None


def _kept(run: RunFolder) -> str:
    names = [path.name for path in list_checkpoints(run.checkpoints_path)]
    return f"Written completely before: {', '.join(names) or 'no checkpoint'}."


def _advice(run: RunFolder) -> str:
    # A fitted or partly fitted retriever is kept even if there is no checkpoint yet.
    return "go on with --resume" if (run.path / "train.json").is_file() else "start again"

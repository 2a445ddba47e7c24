"""A disk that fills up during training: one message that says what is safe, instead of a traceback."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from safetensors import SafetensorError

from diffrgen.errors import DataError
from diffrgen.pipeline.run_folder import RunFolder
from diffrgen.training.checkpoints import list_checkpoints

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def explained(run: RunFolder) -> Iterator[None]:
    """Within the block, turn the errors of a file that could not be written into a DataError that names the folder."""
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        if not _is_failed_write(error):
            raise
        names = [path.name for path in list_checkpoints(run.checkpoints_path)]
        advice = "go on with --resume" if names else "start again with --overwrite"
        raise DataError(
            f"{run.path}: needed room to write to, got: {error}\n"
            f"Written whole before: {', '.join(names) or 'no checkpoint'}. Make room, then {advice}."
        ) from error


def _is_failed_write(error: Exception) -> bool:
    if isinstance(error, OSError):
        return error.errno in NO_ROOM
    if isinstance(error, SafetensorError):
        return any(f"(os error {number})" in str(error) for number in NO_ROOM)
    # torch.save wraps what the system said in a RuntimeError that names its zip writer.
    return "PytorchStreamWriter" in str(error) or "inline_container" in str(error)

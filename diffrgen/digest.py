"""The SHA-256 of a file, read in pieces."""

from __future__ import annotations

import hashlib
from pathlib import Path

PIECE = 2**22


def file_digest(path: Path) -> str:
    """Return the SHA-256 of the content of `path` in hexadecimal digits; OSError where it cannot be read."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(PIECE):
            digest.update(piece)
    return digest.hexdigest()

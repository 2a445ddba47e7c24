"""Multipart bodies taken into memory, bounded by their length."""

from __future__ import annotations

from starlette.formparsers import MultiPartParser


class MemoryParser(MultiPartParser):
    """Starlette's parser, which would write files of more than 1 MB to a folder for temporary files; here none is."""

    spool_max_size = 1 << 40

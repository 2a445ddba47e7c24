"""Surroundings of a test's own: where caches lie, and no Java."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def own_environment(cache: Path) -> Iterator[pytest.MonkeyPatch]:
    """Keep caches in `cache` while the block runs, and hide Java: METEOR has tests of its own and takes 10 s to start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIFFRGEN_CACHE", str(cache))
        patch.setenv("PATH", str(Path(sys.executable).parent))
        patch.delenv("JAVA_HOME", raising=False)
        yield patch

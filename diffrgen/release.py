"""The version of the installed distribution; both distributions take it from `kernels/VERSION`."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


def _version() -> str:
    try:
        return version("diffrgen")
    except PackageNotFoundError:
        # The package is on the path but not installed.
        return (Path(__file__).parents[1] / "kernels" / "VERSION").read_text(encoding="utf-8").strip()


__version__ = _version()

"""The four bounds of annotated-types that `diffrgen.ranges` uses, for GPU machines on which nothing can be installed.

`session.py` puts this folder on the path only where the package is missing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Gt:
    """Above."""

    gt: Any


@dataclass(frozen=True)
class Ge:
    """At least."""

    ge: Any


@dataclass(frozen=True)
class Lt:
    """Below."""

    lt: Any


@dataclass(frozen=True)
class Le:
    """At most."""

    le: Any

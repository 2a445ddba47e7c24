"""The figures of a measurement as a table for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from diffrgen.labels import CLASSES, OTHER


def mechanism_table(measured: Mapping[str, Any], *, title: str) -> Table:
    """Return a row for each change: what it adds to the losses, and to "which word" of each class of words."""
    classes = [name for name in CLASSES if name != OTHER]
    table = Table("taken from another study", "report", "findings", *(f"which {name}" for name in classes), title=title)
    whole = [f"{measured[name]:.3f}" for name in ("language_loss", "disease_loss")]
    table.add_row("nothing", *whole, *(_number(measured["words"][name]["which"]) for name in classes))
    for name, added in measured["added"].items():
        terms = [f"{added[term]['mean']:+.3f}" for term in ("language_loss", "disease_loss")]
        words = [_number(added["words"][word]["which"], sign="+") for word in classes]
        table.add_row(name, *terms, *words)
    return table


def _number(value: Mapping[str, float | None], *, sign: str = "") -> str:
    if value["mean"] is None:
        return ""
    error = "" if value["standard_error"] is None else f" ({value['standard_error']:.3f})"
    return f"{value['mean']:{sign}.3f}{error}"

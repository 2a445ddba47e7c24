"""The examples in docstrings give what they show."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# A line of an example, and no mention of one.
FILES = [
    path.relative_to(base).with_suffix("")
    for base in (ROOT, ROOT / "kernels")
    for path in sorted((base / {ROOT: "diffrgen"}.get(base, "diffrgen_kernels")).rglob("*.py"))
    if any(line.lstrip().startswith(">>> ") for line in path.read_text(encoding="utf-8").splitlines())
]


@pytest.mark.parametrize("file", FILES, ids=str)
def test_examples_hold(file: Path) -> None:
    module = importlib.import_module(".".join(file.parts))
    failed, attempted = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert attempted > 0
    assert failed == 0


def test_there_are_examples() -> None:
    assert len(FILES) > 15

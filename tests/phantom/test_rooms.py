"""The phantom's rooms import one way: patients below, drawing and language side by side, the data set on top."""

from __future__ import annotations

import ast
from importlib.resources import files
from pathlib import Path

import pytest

import diffrgen.phantom

ROOM = Path(diffrgen.phantom.__file__).parent
ALLOWED = {"patients": {"options"}, "drawing": {"options", "patients"}, "language": {"patients"}}


def rooms_imported(path: Path) -> set[str]:
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    names = [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)]
    names += [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    parts = [name.split(".") for name in names if name.startswith("diffrgen.phantom")]
    return {part[2] if len(part) > 2 else "the phantom's face" for part in parts}


def test_every_room_has_its_place():
    assert {path.parent.name for path in ROOM.glob("*/__init__.py")} == set(ALLOWED)


@pytest.mark.parametrize("room", ALLOWED)
def test_room_imports_only_what_lies_below(room):
    for path in (ROOM / room).rglob("*.py"):
        assert rooms_imported(path) - {room} <= ALLOWED[room], path


def test_wordings_ship_beside_the_module_that_reads_them():
    names = {entry.name for entry in (files("diffrgen.phantom.language") / "wordings").iterdir()}
    assert {f"{name}.json" for name in ("slots", "frames", "findings", "joint", "devices", "normals")} <= names

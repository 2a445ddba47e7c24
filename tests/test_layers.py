"""Imports point one way: a lower room never imports a higher one, and importing has no side effect."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from room_order import ALLOWED

import diffrgen

ROOM = Path(diffrgen.__file__).parent
# Single files that every room may import.
FOUNDATION = {"errors", "staging", "workers", "fingerprint", "finite", "lazy", "lock", "weights", "ranges", "release"}
COMMANDS = {
    *("__main__", "rexrank", "score", "serve", "train", "evaluate", "calibrate", "generate", "prepare", "share", "index"),
    "reinforce",
    "command",
}


def rooms_imported(path: Path) -> set[str]:
    """The rooms of this project that a file imports, its own left out."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    parts = [name.split(".") for name in names]
    rooms = {part[1] for part in parts if part[0] == "diffrgen" and len(part) > 1}
    return rooms | {part[0] for part in parts if part[0] == "diffrgen_kernels"}


def test_every_room_has_its_place_in_the_order():
    rooms = {path.name for path in ROOM.iterdir() if path.is_dir() and any(path.glob("*.py"))}
    files = {path.stem for path in ROOM.glob("*.py")} - {"__init__"}
    assert rooms | files == set(ALLOWED) | COMMANDS


@pytest.mark.parametrize("room", sorted(ALLOWED))
def test_room_imports_only_what_lies_below(room):
    paths = list((ROOM / room).rglob("*.py")) or [ROOM / f"{room}.py"]
    for path in paths:
        above = rooms_imported(path) - ALLOWED[room] - FOUNDATION - {room}
        assert not above, f"{path.relative_to(ROOM.parent)} imports {sorted(above)}"


def test_kernels_import_nothing_of_the_model():
    import diffrgen_kernels

    for path in Path(diffrgen_kernels.__file__).parent.rglob("*.py"):
        assert not rooms_imported(path) - {"diffrgen_kernels"}, path


def test_importing_prints_nothing_and_starts_nothing():
    code = (
        "import sys, threading\n"
        "import diffrgen\n"
        "assert 'torch' not in sys.modules\n"
        "import diffrgen.training.run, diffrgen.explanation, diffrgen.page, diffrgen.phantom, diffrgen.serving\n"
        "assert threading.active_count() == 1, threading.enumerate()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")

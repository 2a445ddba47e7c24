"""The generated page of options has every command and every option; the site's navigation has every page of docs/."""

from __future__ import annotations

import importlib.util
import re
import sys
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

from diffrgen.__main__ import COMMANDS

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def options() -> ModuleType:
    spec = importlib.util.spec_from_file_location("options_page", ROOT / "docs" / "site" / "options_page.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["options_page"] = module
    spec.loader.exec_module(module)
    return module


def test_every_command_has_its_options(options: ModuleType) -> None:
    assert {command.partition(" ")[0] for command in options.COMMANDS} == {*COMMANDS, "clinical.poll"}
    sections = dict(re.findall(r"^## ([\w. -]+)\n\n(.*?)(?=\n## |\Z)", options.options_page(), re.MULTILINE | re.DOTALL))
    assert set(sections) == set(options.COMMANDS)
    for command, path in options.COMMANDS.items():
        module, _, name = path.rpartition(".")
        rows = sections[command].count("\n|") - 1
        assert rows >= len(fields(getattr(import_module(module), name))) - 5
    train = sections["train"]
    assert "| `--optimiser.batch-size` | a whole number of at least 1 | `16` | Studies per batch and process. |" in train
    assert "| `--skip-broken` | True or False | `False` |" in train  # of a group without a prefix
    assert "| `RUN` | a path |  | Run folder" in sections["evaluate"]
    assert "| `--unpack` |" in sections["prepare rexgradient"]  # of the class that it is made from


def test_options_have_a_description(options: ModuleType) -> None:
    rows = [line for line in options.options_page().splitlines() if line.startswith("| `")]
    bare = [row for row in rows if row.endswith("|  |")]
    # The phantom's options are described in the docstring of the class.
    assert len(rows) > 150
    assert all(re.search(r"`--(phantom|options)\.", row) for row in bare)


def test_navigation_has_every_page() -> None:
    listed = set(re.findall(r": ([\w/-]+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE))
    pages = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    assert listed == pages | {"index.md", "options.md", "CONTRIBUTING.md", "CHANGELOG.md"}

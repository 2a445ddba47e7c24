"""README, tree and continuous integration agree, and every command that the README shows is one that parses."""

from __future__ import annotations

import re

import pytest
from documented_commands import PARSERS, ROOT, bash_blocks, shown_commands

PAGE = ROOT / "README.md"
README = PAGE.read_text(encoding="utf-8")
BLOCKS = bash_blocks(PAGE)
COMMANDS = shown_commands(PAGE)


@pytest.mark.parametrize("command", COMMANDS, ids=str)
def test_commands_parse(command):
    options = command.parse()
    assert command.module != "train" or options.fused_kernels


def test_readme_shows_every_command():
    shown = {command.module for command in COMMANDS}
    assert {"train", "evaluate", "generate", "prepare", "serve", "experiments"} <= shown <= set(PARSERS)


def test_every_path_and_link_of_the_readme_exists():
    links = re.findall(r"\]\(([^)#:]+)\)", README)
    paths = re.findall(r"`((?:diffrgen|kernels|csrc|tests|bench|docs)/[\w./-]*)`", README)
    assert len(links) > 3
    assert len(paths) > 4
    missing = [path for path in links + paths if not (ROOT / path).exists()]
    assert missing == []


def test_continuous_integration_installs_and_tests_as_the_readme_says():
    steps = (ROOT / ".ci" / "run").read_text(encoding="utf-8").replace("pip install -q", "pip install")
    steps = steps.replace("pytest -q", "pytest")
    install = [line for block in BLOCKS[:2] for line in block.splitlines() if line]
    for line in install:
        for part in line.split("&&"):
            command = part.strip().removesuffix("\\").strip()
            if command.startswith(("pip install", "pytest", "python3 -m venv")):
                assert command.replace('"."', ".") in steps, command

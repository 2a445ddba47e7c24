"""The pages of docs/: their commands parse, their links and paths lead somewhere, their names are names of the code."""

from __future__ import annotations

import ast
import importlib
import re
from itertools import pairwise
from pathlib import Path

import pytest
from documented_commands import PARSERS, ROOT, ShownCommand, bash_blocks, shown_commands
from room_order import ALLOWED

from diffrgen.retrieval.priors import PRIOR_ROWS

DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))
COMMANDS = [(page, command) for page in PAGES for command in shown_commands(page)]
ARCHITECTURE = (DOCS / "architecture.md").read_text(encoding="utf-8")
GUIDE = DOCS / "from-mimic-to-model.md"
NODE = re.compile(r'(\w+)\["([\w.]+)<br/>([\w/.]+\.py)"\]')
(GRAPH,) = re.findall(r"```mermaid\n(.*?)```", ARCHITECTURE, re.DOTALL)


@pytest.mark.parametrize(("page", "command"), COMMANDS, ids=[f"{page.stem}: {command}" for page, command in COMMANDS])
def test_commands_parse(page, command):
    assert command.parse()


def test_the_guide_shows_every_command_and_no_other():
    shown = {command.module for command in shown_commands(GUIDE)}
    assert shown == set(PARSERS)
    lines = sum(block.count("-m diffrgen.") for block in bash_blocks(GUIDE))
    assert lines == len(shown_commands(GUIDE))


def test_a_command_that_does_not_parse_is_noticed(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("```bash\nset -e && python -m diffrgen.train --no-such-option # why\n```\n")
    (command,) = shown_commands(page)
    assert command == ShownCommand("train", ("--no-such-option",))
    with pytest.raises(SystemExit):
        command.parse()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_and_paths_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    links = [DOCS / link for link in re.findall(r"\]\(([^)#:]+)\)", text)]
    paths = [ROOT / path for path in re.findall(r"`((?:diffrgen|kernels|csrc|tests|bench|docs)/[\w./-]*)`", text)]
    assert [path for path in links + paths if not path.exists()] == []


def defined_in(path: Path) -> dict[str, set[str]]:
    """The classes and functions at the top of a file, and the methods of each class."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    kinds = (ast.ClassDef, ast.FunctionDef)
    return {
        node.name: {one.name for one in node.body if isinstance(one, kinds)}
        for node in tree.body
        if isinstance(node, kinds)
    }


@pytest.mark.parametrize(("name", "file"), [found[1:] for found in NODE.findall(GRAPH)])
def test_each_node_of_the_picture_is_defined_in_its_file(name, file):
    thing, _, method = name.partition(".")
    defined = defined_in(ROOT / file)
    assert thing in defined
    assert not method or method in defined[thing]
    module = importlib.import_module(file.removeprefix("kernels/").removesuffix(".py").replace("/", "."))
    assert callable(getattr(module, thing))


def test_each_edge_of_the_picture_joins_nodes_that_it_shows():
    shown = {node for node, _, _ in NODE.findall(GRAPH)} | set(re.findall(r'(\w+)\(\["', GRAPH))
    edges = re.findall(r'^\s*(\w+)(?:[(\[].*?)? -->(?:\|"[^"]*"\|)? (\w+)', GRAPH, re.MULTILINE)
    assert len(edges) == GRAPH.count("-->") > 20
    assert {end for edge in edges for end in edge} == shown


def test_names_in_the_text_are_names_of_the_code():
    """Every `name` in backticks that looks like code, a method of a class among them, is defined in some file."""
    files = [path for folder in ("diffrgen", "kernels") for path in (ROOT / folder).rglob("*.py")]
    defined: dict[str, set[str]] = {}
    for path in files:
        for name, methods in defined_in(path).items():
            defined.setdefault(name, set()).update(methods)
    methods = set().union(*defined.values())
    text = ARCHITECTURE.replace(GRAPH, "")
    named = re.findall(r"`([A-Za-z_]+(?:\.[a-z_]+)?)`", text)
    assert len(named) > 25
    unknown = []
    for name in named:
        thing, _, method = name.partition(".")
        known = method in defined.get(thing, set()) if method else thing in defined or thing in methods
        unknown += [] if known else [name]
    assert unknown == []


def test_the_rows_of_an_earlier_study_are_as_many_as_the_text_says():
    assert f"R = {PRIOR_ROWS} rows" in ARCHITECTURE


def test_the_rooms_are_those_of_the_tree():
    rooms = {path.name for path in (ROOT / "diffrgen").iterdir() if path.is_dir() and any(path.glob("*.py"))}
    assert {room for room in rooms if f"`diffrgen/{room}/`" not in ARCHITECTURE} == set()
    (order,) = re.findall(r"it\.\n\n((?:    .*\n)+)", ARCHITECTURE)
    lines = [line.split("  <-  ") for line in order.splitlines()]
    assert len(lines) > 5
    for line in lines:
        groups = [re.findall(r"\w+", re.sub(r"\(.*\)|the commands|everything", "", group)) for group in line]
        for below, above in pairwise(groups):
            wrong = [(one, other) for one in above for other in below if other not in ALLOWED[one]]
            assert wrong == [], line

"""README, tree and continuous integration agree, and every command that the README shows is one that parses."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import tyro

from diffrgen.evaluation.run import EvaluateOptions
from diffrgen.experiments.__main__ import parse_options as parse_experiment_options
from diffrgen.generate import GenerateOptions
from diffrgen.prepare import parse_options as parse_prepare_options
from diffrgen.train import parse_options

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```bash\n(.*?)```", README, re.DOTALL)


def commands(module: str) -> list[list[str]]:
    """The argument lists of each `python -m diffrgen.<module>` in the README's bash blocks."""
    lines = [line.split("#")[0] for block in BLOCKS for line in block.replace("\\\n", " ").splitlines()]
    parts = [part.strip() for line in lines for part in line.split("&&")]
    marker = f"python -m diffrgen.{module}"
    return [shlex.split(part.removeprefix(marker)) for part in parts if part.startswith(marker)]


@pytest.mark.parametrize("arguments", commands("train"))
def test_train_commands_parse(arguments):
    assert parse_options(arguments).fused_kernels


@pytest.mark.parametrize("arguments", commands("evaluate"))
def test_evaluate_commands_parse(arguments):
    assert tyro.cli(EvaluateOptions, args=arguments, config=(tyro.conf.PositionalRequiredArgs,)).run


@pytest.mark.parametrize("arguments", commands("prepare"))
def test_prepare_commands_parse(arguments):
    assert parse_prepare_options(arguments).out


@pytest.mark.parametrize("arguments", commands("generate"))
def test_generate_commands_parse(arguments):
    assert tyro.cli(GenerateOptions, args=arguments).images


@pytest.mark.parametrize("arguments", commands("experiments"))
def test_experiment_commands_parse(arguments):
    assert parse_experiment_options(arguments).chosen.rows


def test_readme_shows_every_command():
    assert all(commands(module) for module in ("train", "evaluate", "generate", "prepare", "experiments"))


def test_every_path_and_link_of_the_readme_exists():
    links = re.findall(r"\]\(([^)#:]+)\)", README)
    paths = re.findall(r"`((?:diffrgen|kernels|csrc|tests|bench|docs)/[\w./-]*)`", README)
    assert len(links) > 3
    assert len(paths) > 10
    missing = [path for path in links + paths if not (ROOT / path).exists()]
    assert missing == []


def test_reading_order_names_every_room():
    rooms = {f"diffrgen/{path.name}/" for path in (ROOT / "diffrgen").iterdir() if any(path.glob("*.py"))}
    assert {room for room in rooms if room not in README} == set()


def test_continuous_integration_installs_and_tests_as_the_readme_says():
    steps = (ROOT / ".ci" / "run").read_text(encoding="utf-8").replace("pip install -q", "pip install")
    steps = steps.replace("pytest -q", "pytest")
    install = [line for block in BLOCKS[:2] for line in block.splitlines() if line]
    for line in install:
        for part in line.split("&&"):
            command = part.strip().removesuffix("\\").strip()
            if command.startswith(("pip install", "pytest", "python3 -m venv")):
                assert command.replace('"."', ".") in steps, command

"""Prints the lowest version that pyproject.toml allows of each dependency of the tests, as constraints for pip."""

from __future__ import annotations

import sys
from pathlib import Path

import tomllib
from packaging.requirements import Requirement

PROJECT = tomllib.loads((Path(__file__).resolve().parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
# Not the oldest torch: its builds on PyPI bring gigabytes of CUDA libraries; such a build asks for one version of triton.
LEFT = {"torch", "triton"}


def requirements(names: list[str]) -> list[Requirement]:
    """Return those of `names`, with those of this project's extras that are among them."""
    found = []
    for requirement in map(Requirement, names):
        if requirement.name == PROJECT["name"]:
            for extra in sorted(requirement.extras):
                found += requirements(PROJECT["optional-dependencies"][extra])
        elif requirement.marker is None or requirement.marker.evaluate():
            found.append(requirement)
    return found


def lowest(requirement: Requirement) -> str:
    """Return the version of the bound `>=`; ValueError where there is none."""
    for bound in requirement.specifier:
        if bound.operator in (">=", "=="):
            return bound.version
    raise ValueError(f"pyproject.toml: needed a lower bound of {requirement.name}, got {str(requirement)!r}")


def main() -> None:
    """Print a constraint a line, each dependency's once."""
    names = [*PROJECT["dependencies"], f"{PROJECT['name']}[test]"]
    lines = {f"{one.name}=={lowest(one)}" for one in requirements(names) if one.name not in LEFT}
    sys.stdout.write("\n".join(sorted(lines)) + "\n")


if __name__ == "__main__":
    main()

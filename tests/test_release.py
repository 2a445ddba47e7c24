"""One version: both distributions, the citation and the changelog have the same."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VERSION = (ROOT / "kernels" / "VERSION").read_text(encoding="utf-8").strip()


def text_of(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def test_both_distributions_have_the_version_of_one_file() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+(\.dev\d+)?", VERSION)
    for path, file in (("pyproject.toml", "kernels/VERSION"), ("kernels/pyproject.toml", "VERSION")):
        assert f'version = {{ file = "{file}" }}' in text_of(path)
        assert not re.search(r'^version = "', text_of(path), re.MULTILINE)


def test_citation_and_changelog_name_the_version() -> None:
    (cited,) = re.findall(r"^version: (.+)$", text_of("CITATION.cff"), re.MULTILINE)
    assert cited == VERSION
    newest, *earlier = re.findall(r"^## \[([\d.]+)\] - (.+)$", text_of("CHANGELOG.md"), re.MULTILINE)
    assert newest[0] == VERSION.partition(".dev")[0]
    assert (newest[1] == "unreleased") == (".dev" in VERSION)
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\d", day) for _, day in earlier)


def test_the_paper_is_linked_at_its_own_address() -> None:
    address = "https://proceedings.mlr.press/v301/bian26a.html"
    for path in ("README.md", "pyproject.toml", "kernels/pyproject.toml", "CITATION.cff"):
        assert address in text_of(path)


def test_workflows_call_what_a_checkout_calls() -> None:
    steps = text_of(".ci/run")
    assert ".ci/run" in text_of(".github/workflows/ci.yml")
    for step in ("ruff check .", "mypy", "mkdocs build --strict", "pytest -q"):
        assert step in steps
    assert "mkdocs build --strict" in text_of(".github/workflows/docs.yml")

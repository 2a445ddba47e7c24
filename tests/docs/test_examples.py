"""The scripts of examples/ run, and print what they promise."""

from __future__ import annotations

import csv
import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_table_becomes_a_data_set(tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two patients of two studies each; the second study has two images."""
    table, output = tmp_path / "reports.csv", tmp_path / "annotation.json"
    rows = [("a", "1", "0.png"), ("a", "2", "1.png"), ("a", "2", "2.png"), ("b", "3", "3.png"), ("b", "4", "4.png")]
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["patient", "study", "image", "report"])
        writer.writerows([*row, f"report of study {row[1]} ."] for row in rows)
    example("own_data").main([str(table), str(tiny_run.parent / "studies"), str(output)])
    splits = json.loads(output.read_text())
    found = {study["id"]: (split, study["image_path"]) for split, studies in splits.items() for study in studies}
    assert found["2"][1] == ["1.png", "2.png"]
    assert found["1"][0] == found["2"][0]
    assert found["3"][0] == found["4"][0]
    printed = capsys.readouterr().out
    counts = re.findall(r"(\d+) studies, (\d+) images", printed)
    assert (sum(int(studies) for studies, _ in counts), sum(int(images) for _, images in counts)) == (4, 5)
    assert "cannot be read" not in printed


def test_the_operator_alone_learns(capsys: pytest.CaptureFixture[str]) -> None:
    example("operator_alone").main()
    printed = capsys.readouterr().out
    first, *_, last = map(float, re.findall(r"loss ([\d.]+)", printed))
    assert last < first / 2
    assert "reference: ok" in printed


def test_an_explanation_names_places_and_writes_a_page(
    tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = tiny_run.parent / "studies" / "0.png"
    example("explanation").main([str(tiny_run), str(image), str(tmp_path / "pages")])
    printed = capsys.readouterr().out
    assert "findings that prompted the report: " in printed
    (page,) = re.findall(r"^page: (.+)$", printed, re.MULTILINE)
    assert "<html" in Path(page).read_text(encoding="utf-8")


def test_every_example_is_run_here() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.py")} == {"own_data", "operator_alone", "explanation"}

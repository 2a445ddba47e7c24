"""`diffrgen.score --against`: two files over the studies that both have."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest

from diffrgen import score
from diffrgen.command import run_command
from diffrgen.errors import DataError
from diffrgen.evaluation.dump import ScoreOptions, compare_predictions

pytestmark = pytest.mark.usefixtures("no_java")

TRUTH = {
    "a": "The heart is enlarged.",
    "b": "There is a pleural effusion.",
    "c": "The lungs are clear.",
    "d": "There is edema.",
}


def written(path: Path, reports: dict[str, str], references: bool = True) -> Path:
    records = [
        {"id": name, "hypothesis": said, **({"reference": TRUTH[name]} if references else {})}
        for name, said in reports.items()
    ]
    path.write_text("\n".join(map(json.dumps, records)))
    return path


def test_files_are_compared_over_their_common_studies(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = written(tmp_path / "first.jsonl", TRUTH)
    other = written(tmp_path / "other.jsonl", {"c": "The lungs are clear.", "b": "No effusion.", "x": "Edema."}, False)
    output = tmp_path / "both.json"
    arguments = [str(first), "--against", str(other), "--protocol", "raw", "--output", str(output)]
    assert score.main(arguments) == 0
    printed = capsys.readouterr().out
    assert f"studies in both files: 2; only in the first: 2, only in {other}: 1" in printed
    content = json.loads(output.read_text())
    assert list(content) == ["first.jsonl", "other.jsonl", "differences"]
    # Of b and c, the first file has every finding, the other misses the effusion.
    assert content["first.jsonl"]["clinical_13"]["micro"]["f1"] == 1
    assert content["other.jsonl"]["clinical_13"]["micro"] == {"precision": None, "recall": 0, "f1": 0}
    difference = content["differences"]["micro_f1"]
    assert (difference["first"], difference["second"], difference["difference"]) == (1, 0, 1)
    # Half of the exchanges give one system both effusions' hits and the other none: always 1 apart.
    assert difference["p"] == 1


def test_a_file_against_itself_is_no_different(tmp_path: Path) -> None:
    first = written(tmp_path / "first.jsonl", {**TRUTH, "b": "No effusion."})
    comparison = compare_predictions(ScoreOptions(first, against=first, protocol="raw"))
    assert list(comparison.scores) == ["first.jsonl", "first.jsonl (against)"]
    assert {each.difference for each in comparison.differences.values()} == {0}
    assert {each.p for each in comparison.differences.values()} == {1}


def test_references_of_a_data_set_hold_for_the_common_studies(tmp_path: Path) -> None:
    studies = [{"id": name, "report": text, "image_path": "a.png"} for name, text in TRUTH.items()]
    data = tmp_path / "annotation.json"
    data.write_text(json.dumps({"train": [{**studies[0], "id": "t"}], "test": studies}))
    first = written(tmp_path / "first.jsonl", {"d": "There is edema.", "a": "Clear."}, False)
    other = written(tmp_path / "other.jsonl", {"a": "The heart is enlarged."}, False)
    comparison = compare_predictions(ScoreOptions(first, data=data, against=other, protocol="raw"))
    assert comparison.scores["other.jsonl"].corpus["bleu_1"] == pytest.approx(1)
    assert comparison.scores["first.jsonl"].clinical.studies == 1


def test_files_without_ids_are_joined_by_order(tmp_path: Path) -> None:
    references = tmp_path / "gts.csv"
    references.write_text("\n".join(TRUTH.values()))
    first, other, short = tmp_path / "res.csv", tmp_path / "other.csv", tmp_path / "short.csv"
    first.write_text("\n".join(TRUTH.values()))
    other.write_text("clear lungs\n" * 4)
    short.write_text("clear lungs\n" * 3)
    options = ScoreOptions(first, references=references, against=other, protocol="raw")
    assert compare_predictions(options).differences["micro_f1"].difference == 1
    with pytest.raises(DataError, match=r"short\.csv: expected 4 reports, as neither file has ids, got 3"):
        compare_predictions(ScoreOptions(first, references=references, against=short, protocol="raw"))


def test_what_cannot_be_compared_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = written(tmp_path / "first.jsonl", TRUTH)
    other = written(tmp_path / "other.jsonl", {"x": "Edema."}, False)
    assert run_command(partial(score.main, [str(first), "--against", str(other), "--protocol", "raw"])) == 2
    assert "expected studies of" in capsys.readouterr().err
    with pytest.raises(DataError, match="--against-column requires --against"):
        ScoreOptions(first, against_column=("text",))
    two = tmp_path / "two.jsonl"
    two.write_text(json.dumps({"id": "a", "prediction": "x", "generated": "The heart is enlarged."}))
    options = ScoreOptions(first, against=two, against_column=("generated",), protocol="raw")
    assert compare_predictions(options).differences["micro_f1"].difference == 0

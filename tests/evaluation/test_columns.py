"""Prediction files of the field's code bases: which columns are taken, what is refused, and that each is scored."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import public_dumps
import pytest
from public_dumps import STUDIES, Dump

from diffrgen import evaluate, score
from diffrgen.command import run_command
from diffrgen.errors import DataError
from diffrgen.evaluation.columns import ColumnOptions, joined_text
from diffrgen.evaluation.dump import ScoreOptions
from diffrgen.evaluation.predictions import (
    Prediction,
    read_prediction_file,
    read_predictions,
    read_references,
    with_references,
)

pytestmark = pytest.mark.usefixtures("no_java")

IDS, TRUE_FINDINGS, TRUE_IMPRESSIONS, SAID_FINDINGS, SAID_IMPRESSIONS = zip(*STUDIES, strict=True)
TRUE_BOTH = [" ".join(pair) for pair in zip(TRUE_FINDINGS, TRUE_IMPRESSIONS, strict=True)]
SAID_BOTH = [" ".join(pair) for pair in zip(SAID_FINDINGS, SAID_IMPRESSIONS, strict=True)]
SHAPES: dict[Callable[[Path], Dump], tuple[tuple[str | None, ...], tuple[str, ...], tuple[str, ...]]] = {
    public_dumps.r2gen: ((None,) * 3, SAID_FINDINGS, TRUE_FINDINGS),
    public_dumps.cxrmate2: (IDS, tuple(SAID_BOTH), tuple(TRUE_BOTH)),
    public_dumps.mlrg: (IDS, SAID_FINDINGS, TRUE_FINDINGS),
    public_dumps.priorrg: (IDS, SAID_FINDINGS, TRUE_FINDINGS),
    # The impression of the last study is NaN, as pandas writes an absent one.
    public_dumps.rexrank: (IDS, tuple(SAID_BOTH), (*TRUE_BOTH[:2], TRUE_FINDINGS[2])),
}


def read(dump: Dump, **columns: object) -> list[Prediction]:
    options = ColumnOptions(**columns)
    predictions = read_prediction_file(dump.predictions, options).predictions
    if dump.references is None:
        return predictions
    return with_references(predictions, read_references(dump.references, options).predictions, dump.references)


@pytest.mark.parametrize("shape", SHAPES)
def test_each_public_shape_is_what_its_writer_meant(shape: Callable[[Path], Dump], tmp_path: Path) -> None:
    ids, said, true = SHAPES[shape]
    assert read(shape(tmp_path)) == [Prediction(*each) for each in zip(ids, said, true, strict=True)]


@pytest.mark.parametrize("shape", SHAPES)
def test_evaluate_scores_each_public_shape(
    shape: Callable[[Path], Dump], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dump = shape(tmp_path)
    references = [] if dump.references is None else ["--references", str(dump.references)]
    output = tmp_path / "scores.json"
    common = ["--protocol", "raw", *references]
    assert evaluate.main(["--output", str(output), "--predictions", str(dump.predictions), *common]) == 0
    assert f"{dump.predictions}: generated reports: " in capsys.readouterr().out
    # On the findings: the heart is found (1), the effusion is not there (1 more was predicted), edema was missed.
    scores = json.loads(output.read_text())["clinical_13"]["micro"]
    assert scores == {"precision": pytest.approx(1 / 2), "recall": pytest.approx(1 / 2), "f1": pytest.approx(1 / 2)}
    again = tmp_path / "again.json"
    assert score.main([str(dump.predictions), "--output", str(again), *common]) == 0
    assert again.read_text() == output.read_text()


@pytest.mark.parametrize("shape", [public_dumps.cxrmate2, public_dumps.rexrank])
def test_sections_are_scored_alone_where_they_are_asked_for(shape: Callable[[Path], Dump], tmp_path: Path) -> None:
    dump = shape(tmp_path)
    findings = read(dump, sections="findings")
    assert [(each.hypothesis, each.reference) for each in findings] == list(
        zip(SAID_FINDINGS, TRUE_FINDINGS, strict=True)
    )
    impressions = read(dump, sections="impression")
    assert [each.hypothesis for each in impressions] == list(SAID_IMPRESSIONS)
    absent = None if shape is public_dumps.rexrank else TRUE_IMPRESSIONS[2]
    assert [each.reference for each in impressions] == [*TRUE_IMPRESSIONS[:2], absent]


def written(folder: Path, record: dict[str, object], name: str = "a.json") -> Path:
    path = folder / name
    path.write_text(json.dumps([record]))
    return path


@pytest.mark.parametrize(
    ("record", "columns", "hypothesis", "reference"),
    [
        ({"report": "a", "gt": "b"}, {}, "a", "b"),
        ({"prediction": "a", "report": "b"}, {}, "a", "b"),
        ({"generated_reports": "a", "findings": "b", "impression": "c"}, {}, "a", "b c"),
        ({"findings": "a", "impression": None, "section_findings": "b"}, {}, "a", "b"),
        ({"report": "a", "labels": [0, 1]}, {}, "a", None),
        ({"report": "a", "labels": "0 1 -1"}, {}, "a", None),
        ({"report": "a", "labels": "clear"}, {}, "a", "clear"),
        ({"x": "a", "y": "b", "report": "c"}, {"hypothesis_column": ("x",), "reference_column": ("y",)}, "a", "b"),
        ({"x": "a", "y": "b"}, {"hypothesis_column": ("x", "y")}, "a b", None),
        ({"report": "a", "prediction": "b"}, {"hypothesis_column": ("report",)}, "a", None),
        ({"gt": "a", "ref": "b", "res": "c"}, {"reference_column": ("ref",)}, "c", "b"),
        ({"report": "a", "findings": "b"}, {"sections": "findings"}, "b", "a"),
    ],
)
def test_columns_that_are_chosen(
    tmp_path: Path, record: dict[str, object], columns: dict, hypothesis: str, reference: str | None
) -> None:
    (prediction,) = read_prediction_file(written(tmp_path, record), ColumnOptions(**columns)).predictions
    assert (prediction.hypothesis, prediction.reference) == (hypothesis, reference)


@pytest.mark.parametrize(
    ("record", "columns", "message"),
    [
        ({"prediction": "a", "generated": "b"}, {}, "one generated report, got the candidates prediction and generated;"),
        ({"report": "a", "gt": "b", "reference": "c"}, {}, "one reference, got the candidates reference and gt; choose"),
        ({"report": "a", "findings": "b"}, {}, "candidates report and findings; choose with --hypothesis-column"),
        (
            {"report": "a", "findings": "b", "impression": "c"},
            {},
            r"candidates report and findings \+ impression; choose with --hypothesis-column or --sections",
        ),
        ({"res": "a", "report": "b", "section_findings": "c"}, {}, "candidates report and section_findings; choose with"),
        ({"res": "a", "study_id": 1, "dicom_id": 2}, {}, "one id, got the candidates study_id and dicom_id; choose with"),
        ({"res": "a"}, {"hypothesis_column": ("text",)}, "expected the column 'text', got res"),
        ({"res": "a"}, {"id_column": "name"}, "expected the column 'name', got res"),
        ({"words": "a"}, {}, "expected one of hypothesis, .* got words; name the field with --hypothesis-column"),
    ],
)
def test_what_two_columns_could_mean_is_asked(tmp_path: Path, record: dict, columns: dict, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_prediction_file(written(tmp_path, record), ColumnOptions(**columns))


def test_command_leaves_with_both_names_and_status_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.tsv"
    path.write_text("id\tprediction\tgenerated_report\treference\n1\ta\tb\tc\n")
    assert run_command(partial(evaluate.main, ["--predictions", str(path)])) == 2
    assert "prediction and generated_report; choose with --hypothesis-column" in capsys.readouterr().err
    chosen = ["--hypothesis-column", "generated_report", "--protocol", "raw"]
    assert run_command(partial(evaluate.main, [f"--predictions={path}", *chosen])) == 0
    assert "generated reports: generated_report, references: reference, ids: id" in capsys.readouterr().out


def test_a_table_of_one_column_has_a_header_only_where_it_names_one(tmp_path: Path) -> None:
    bare, named = tmp_path / "res.csv", tmp_path / "named.csv"
    bare.write_text('"clear lungs, no edema"\nreport\n')
    named.write_text("report\nclear lungs\n")
    assert [each.hypothesis for each in read_predictions(bare)] == ["clear lungs, no edema", "report"]
    assert [each.hypothesis for each in read_predictions(named)] == ["clear lungs"]


def test_references_of_another_file_must_belong_to_the_reports(tmp_path: Path) -> None:
    dump = public_dumps.r2gen(tmp_path)
    short = public_dumps.write(tmp_path / "short.csv", [("clear",)])
    with pytest.raises(DataError, match=r"short\.csv: expected a reference for each of 3 reports, got 1"):
        read(Dump(dump.predictions, short))
    other = written(tmp_path, {"id": "s9", "report": "clear"})
    with pytest.raises(DataError, match="got none for 3, such as s1"):
        read(Dump(public_dumps.cxrmate2(tmp_path).predictions, other))
    with pytest.raises(DataError, match="got none for 3, such as a report without an id"):
        read(Dump(dump.predictions, other))
    with pytest.raises(DataError, match="expected either --references or --data"):
        ScoreOptions(dump.predictions, references=short, data=short)


@pytest.mark.parametrize(
    ("text", "sections", "expected"),
    [
        ("Findings: a. Impression: b.", "findings", "a."),
        ("Findings: a. Impression: b.", "both", "a. b."),
        ("TECHNIQUE: c. FINDINGS : a.\nIMPRESSION: b.", "both", "TECHNIQUE: c. a. b."),
        ("IMPRESSION: b.", "findings", ""),
        ("no headings, but findings", "findings", "no headings, but findings"),
        ("Findings: a.", None, "Findings: a."),
    ],
)
def test_headings_say_what_a_text_is(text: str, sections: str | None, expected: str) -> None:
    assert joined_text([text], sections) == expected

"""Scoring reports that others wrote: every shape of file, and published scores from one."""

from __future__ import annotations

import json

import pytest

from diffrgen.errors import DataError
from diffrgen.evaluate import main
from diffrgen.evaluation.dump import ScoreOptions, score_predictions
from diffrgen.evaluation.predictions import Prediction, read_predictions

SHAPES = {
    "ours.jsonl": '{"id": "a", "reference": "no edema", "hypothesis": "edema"}\n\n{"id": 2, "hypothesis": "x"}\n',
    "list.json": '[{"image_id": "a", "gts": ["no edema"], "res": ["edema"]}, {"study_id": 2, "generated": "x"}]',
    "by_id.json": '{"a": {"hypothesis": "edema", "ground_truth": "no edema"}, "2": "x"}',
    "table.csv": "\ufeffreport,reference,dicom_id\nedema,no edema,a\nx,,2\n",
}


@pytest.mark.parametrize("name", SHAPES)
def test_every_shape_gives_the_same_predictions(tmp_path, name):
    path = tmp_path / name
    path.write_text(SHAPES[name], encoding="utf-8")
    first, second = read_predictions(path)
    assert first == Prediction("a", "edema", "no edema")
    assert (second.id, second.hypothesis, second.reference or None) == ("2", "x", None)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", "[", "a.json: expected .json with a report a record, got Expecting value"),
        ("a.json", "3", "expected a list or an object of predictions, got int"),
        ("a.json", "[]", "expected at least one prediction, got none"),
        ("a.json", '[{"id": "x"}]', "a.json, record 1: expected one of hypothesis, .* got id"),
        ("a.json", "[7]", "record 1: expected an object with one of hypothesis, .* got int"),
        ("a.jsonl", '{"report": 1.5}', "line 1: expected 'report' to be a text, got 1.5"),
        ("a.jsonl", '{"id": 1, "report": "a"}\n{"id": "1", "report": "b"}', "id '1' more than once"),
        ("a.csv", "study,words\n1,2\n", "a.csv, line 2: expected one of hypothesis, .* got study, words"),
    ],
)
def test_what_is_no_dump_is_refused(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(DataError, match=message):
        read_predictions(path)


def test_bytes_that_are_no_text_are_refused(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match=r"a\.json: expected predictions as UTF-8"):
        read_predictions(path)


@pytest.fixture
def dump(tmp_path):
    """Two studies; the heart is said to be large in both and is in the first, the effusion of the second is missed."""
    path = tmp_path / "dump.jsonl"
    texts = [("Cardiomegaly.", "Cardiomegaly."), ("Cardiomegaly.", "There is a pleural effusion.")]
    records = [{"id": str(i), "hypothesis": said, "reference": true} for i, (said, true) in enumerate(texts)]
    path.write_text("\n".join(map(json.dumps, records)))
    return path


def test_scores_by_hand(no_java_once, dump, tmp_path, capsys):
    output = tmp_path / "scores.json"
    assert main(["--predictions", str(dump), "--output", str(output), "--published", "iu-xray"]) == 0
    table = capsys.readouterr().out
    assert "PromptMRG" in table
    assert "(published)" in table
    scores = json.loads(output.read_text())
    # hits 1, said 2, true 2: precision, recall and F1 are 1/2 whichever findings are counted
    for name in ("clinical_14", "clinical_13", "clinical_5"):
        assert scores[name]["micro"] == {"precision": 0.5, "recall": 0.5, "f1": 0.5}
    # words "cardiomegaly ." twice against 2 and 6 words: 2 + 1 of 4 match, brevity exp(1 - 8/4)
    assert scores["nlg"]["bleu_1"] == pytest.approx(0.75 * 2.718281828**-1)
    with pytest.raises(DataError, match="needed a new file, got one that exists"):
        score_predictions(ScoreOptions(dump, output=output))


def test_references_and_labels_come_from_the_annotation(no_java_once, dump, tmp_path):
    """The labels call both hearts normal, whatever the reports say."""
    annotation = tmp_path / "annotation.json"
    labels = [0] * 13 + [1]
    studies = [{"id": str(i), "report": "Clear.", "image_path": "a.png", "labels": labels} for i in (1, 0)]
    annotation.write_text(json.dumps({"train": [{**studies[0], "id": "t"}], "test": studies}))
    scores = score_predictions(ScoreOptions(dump, data=annotation))
    assert (scores.diseases.micro.precision, scores.clinical.per_finding[13].support) == (0.0, 2)
    annotation.write_text(json.dumps({"train": [], "test": studies[:1]}))
    with pytest.raises(DataError, match=r"expected the 1 studies .* not in the split: \['0'\]"):
        score_predictions(ScoreOptions(dump, data=annotation))


def test_missing_references_and_training_reports_are_said(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"report": "a"}\n')
    with pytest.raises(DataError, match="1 of 1 records have none"):
        score_predictions(ScoreOptions(path))
    with pytest.raises(DataError, match="protocol r2gen-iu needs --data"):
        score_predictions(ScoreOptions(path, protocol="r2gen-iu"))


def test_published_scores_from_the_published_dump(no_java_once, shared):
    """All but METEOR, which tests/metrics/test_corpus.py computes of the same reports."""
    folder = shared / "iu_xray"
    published = json.loads((folder / "golden_nlg.json").read_text())["published"]
    del published["meteor"]
    dump, data = folder / "golden_nlg_hypotheses.csv", folder / "annotation.json"
    scores = score_predictions(ScoreOptions(dump, data=data, protocol="r2gen-iu")).corpus
    assert {name: round(value, 4) for name, value in scores.items()} == pytest.approx(published, abs=5e-4)
    assert scores["bleu_4"] == pytest.approx(published["bleu_4"], abs=1e-4)

"""Other systems' reports, human labels and CheXbert from the hub beside a run's own."""

from __future__ import annotations

import csv
import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from chexbert_files import write_chexbert
from fake_hub import Repository, used_hub
from gold_classes import GOLD_CLASSES
from sklearn.metrics import f1_score, roc_auc_score

from diffrgen import evaluate as evaluate_command
from diffrgen.command import run_command
from diffrgen.errors import DataError
from diffrgen.evaluation.contenders import contender_files, read_contenders
from diffrgen.evaluation.human_labels import HumanLabels, human_scores, read_human_labels
from diffrgen.evaluation.result import MODEL_ROW
from diffrgen.labels import FINDINGS, RuleLabeler
from diffrgen.metrics.auroc import auroc
from diffrgen.pipeline.labeler import HUB, LabelerOptions, absolute_checkpoint, make_labeler

pytestmark = pytest.mark.usefixtures("no_java")


def test_auroc_is_scikit_learns_with_ties() -> None:
    for seed in range(200):
        draw = np.random.default_rng(seed)
        count = int(draw.integers(2, 40))
        truth = draw.random(count) < 0.4
        truth[:2] = True, False
        scores = draw.integers(0, 5, count) / 4 if seed % 2 else draw.random(count)
        assert auroc(scores, truth, resamples=0).value == pytest.approx(roc_auc_score(truth, scores), abs=1e-12)


def test_interval_of_auroc_is_that_of_resampled_studies() -> None:
    draw = np.random.default_rng(0)
    truth = draw.random(120) < 0.3
    scores = truth * 0.8 + draw.normal(size=120)
    found = auroc(scores, truth)
    values = []
    for _ in range(1500):
        rows = draw.integers(120, size=120)
        values.append(roc_auc_score(truth[rows], scores[rows]))
    assert found.interval == pytest.approx(tuple(np.percentile(values, (2.5, 97.5))), abs=0.02)
    assert (found.positives, found.negatives) == (truth.sum(), (~truth).sum())
    with pytest.raises(ValueError, match="expected positive and negative studies, got 0 positive of 2"):
        auroc(np.zeros(2), np.zeros(2, dtype=bool))


def labels_file(path: Path, rows: list[dict[str, object]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_human_labels_are_mapped_to_findings(tmp_path: Path) -> None:
    rows = [
        {"filename": "CXR1", "Effusion": 1, "Mass": 0, "Nodule": 1, "Hernia": 1, "normal": 0, "Pleural_Other": "-"},
        {"filename": "CXR2", "Effusion": 0, "Mass": 0, "Nodule": 0, "Hernia": 0, "normal": 1, "Pleural_Other": 1},
    ]
    labels = read_human_labels(labels_file(tmp_path / "gold.csv", rows))
    assert labels.findings == ("lung lesion", "pleural effusion", "pleural other")
    got = labels.matrix(["CXR2", "CXR1_IM-0001-4001", "CXR9"])
    assert np.array_equal(got, [[0, 0, 1], [1, 1, np.nan], [np.nan] * 3], equal_nan=True)
    with pytest.raises(DataError, match=r"expected labels for studies such as 'x', got ids such as 'CXR1'"):
        labels.matrix(["x"])


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.json", "{}", r"expected human labels as \.csv or \.tsv, got \.json"),
        ("a.csv", "name,edema\nx,1\n", r"line 2: expected an id \(id, study_id, .*got name, edema"),
        ("a.csv", "id,hernia\nx,1\n", "expected an id .* and findings such as cardiomegaly, got id, hernia"),
        ("a.csv", "id,edema\nx,yes\n", "line 2: expected 'edema' to be 1, 0 or empty, got 'yes'"),
        ("a.csv", "id,edema\nx,1\nx,0\n", "line 3: expected a study once, got 'x' again"),
        ("a.csv", "id,edema\n", "expected a row a study, got none"),
    ],
)
def test_what_are_no_human_labels_is_refused(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=message):
        read_human_labels(tmp_path / name)


def test_scores_against_human_labels() -> None:
    """Edema has 30 positives, fracture 19; the states of 20 studies are not known for edema."""
    draw = np.random.default_rng(1)
    ids = [f"s{n}" for n in range(100)]
    truth = {"edema": np.arange(100) < 30, "fracture": np.arange(100) >= 81}
    labels = {
        name: {finding: int(values[n]) for finding, values in truth.items() if finding != "edema" or n < 80}
        for n, name in enumerate(ids)
    }
    human = HumanLabels(Path("gold.csv"), ("edema", "fracture"), labels)
    states = draw.integers(0, 4, (100, 14))
    probabilities = {name: draw.random(100) for name in FINDINGS}
    found = human_scores(human, ids, states, probabilities)
    edema = (states[:, FINDINGS.index("edema")] == 1)[:80]
    fracture = states[:, FINDINGS.index("fracture")] == 1
    assert found.f1["edema"] == pytest.approx(f1_score(truth["edema"][:80], edema))
    assert found.f1["fracture"] == pytest.approx(f1_score(truth["fracture"], fracture))
    together = [np.concatenate(pair) for pair in ((truth["edema"][:80], truth["fracture"]), (edema, fracture))]
    assert found.micro_f1 == pytest.approx(f1_score(*together))
    assert found.micro_f1_interval[0] < found.micro_f1 < found.micro_f1_interval[1]
    # Nineteen positives are too few for an area.
    assert list(found.auroc) == ["edema"]
    expected = roc_auc_score(truth["edema"][:80], probabilities["edema"][:80])
    assert found.mean_auroc == found.auroc["edema"].value == pytest.approx(expected)
    assert human_scores(human, ids, states).auroc is None


def test_rule_labeler_agrees_with_open_i(shared: Path) -> None:
    """The mapping of classes is that of the labeler's own test, which measures each of them."""
    labels = read_human_labels(shared / "iu_xray" / "openi_gold_14findings.csv")
    assert set(labels.findings) == set(GOLD_CLASSES)
    data = json.loads((shared / "iu_xray" / "annotation.json").read_text())["test"]
    ids, texts = [study["id"] for study in data], [study["report"] for study in data]
    found = human_scores(labels, ids, RuleLabeler()(texts), resamples=0)
    assert found.studies > 550
    # The annotation holds the findings section alone, and the labels were made from the complete report.
    assert found.micro_f1 > 0.7


def test_contenders_are_named_and_complete(tmp_path: Path) -> None:
    file = tmp_path / "theirs.csv"
    file.write_text("id,report\nb,two\na,one\nc,three\n")
    files = contender_files([f"R2Gen={file}"], taken=("DiffRGenNet",))
    assert read_contenders(files, ["a", "b"]) == {"R2Gen": ["one", "two"]}
    with pytest.raises(DataError, match=r"a report for each of the 2 evaluated studies, got none for 1, such as 'x'; the"):
        read_contenders(files, ["x", "a"])
    for wrong, message in (("R2Gen", "expected NAME=FILE, got 'R2Gen'"), ("=x", "expected NAME=FILE, got '=x'")):
        with pytest.raises(DataError, match=message):
            contender_files([wrong])
    for twice in (["a=x", "a=y"], ["DiffRGenNet=x"]):
        with pytest.raises(DataError, match="expected a name that no other row of the table has"):
            contender_files(twice, taken=("DiffRGenNet",))


def test_evaluation_puts_contenders_and_human_labels_into_the_table(
    own_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    earlier = own_run / "evaluation" / "val" / "predictions.jsonl"
    records = [json.loads(line) for line in earlier.read_text().splitlines()]
    truth = tmp_path / "truth.csv"
    rows = [{"id": record["id"], "report": record["reference"]} for record in records]
    labels_file(truth, rows)
    gold = labels_file(tmp_path / "gold.csv", [{"id": r["id"], "edema": n % 2, "fracture": 0} for n, r in enumerate(rows)])
    command = [str(own_run), "--split", "val", "--generation.beams", "1", "--resamples", "50", "--human-labels", str(gold)]
    command += ["--contender", f"the same={earlier}", f"the truth={truth}"]
    assert evaluate_command.main(command) == 0
    assert "DiffRGenNet minus" in capsys.readouterr().out
    folder = own_run / "evaluation" / "val-2"
    metrics = json.loads((folder / "metrics.json").read_text())
    assert list(metrics)[:3] == [MODEL_ROW, "the same", "the truth"]
    assert metrics["the same"]["nlg"] == metrics[MODEL_ROW]["nlg"]
    assert {each["p"] for each in metrics["the same"]["model_minus_this"].values()} <= {1, None}
    assert metrics["the truth"]["nlg"]["bleu_1"] == pytest.approx(1, abs=0.2)
    difference = metrics["the truth"]["model_minus_this"]["bleu_1"]
    assert difference["difference"] == pytest.approx(
        metrics[MODEL_ROW]["nlg"]["bleu_1"] - metrics["the truth"]["nlg"]["bleu_1"]
    )
    assert metrics[MODEL_ROW]["human_labels"]["positives"] == {"edema": 2, "fracture": 0}
    assert metrics[MODEL_ROW]["human_labels"]["auroc"] == {}
    assert metrics["the truth"]["human_labels"]["auroc"] is None
    table = (folder / "table.md").read_text()
    assert "| DiffRGenNet minus | the same | the truth |" in table
    assert "- the truth: micro-F1" in table
    unusable = [*command[:5], "--contender", f"other={gold}"]
    assert run_command(partial(evaluate_command.main, unusable)) == 2


def test_chexbert_comes_from_the_hub_only_when_asked(tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    checkpoint, folder = write_chexbert(tmp_path / "files")
    vocabulary = (folder / "vocab.txt").read_bytes()
    with used_hub(str(tmp_path / "cache")) as hub:
        hub.repositories["StanfordAIMI/RRG_scorers"] = Repository(False, {"chexbert.pth": checkpoint.read_bytes()})
        hub.repositories["google-bert/bert-base-uncased"] = Repository(False, {"vocab.txt": vocabulary})
        local = make_labeler(LabelerOptions("chexbert", checkpoint, folder), default="rule")
        with pytest.raises(DataError, match="requires its published files, got no --chexbert"):
            make_labeler(LabelerOptions("chexbert"), default="rule")
        assert hub.requests == []
        fetched = make_labeler(LabelerOptions("chexbert", HUB), default="rule")
        texts = ["no effusion .", "the heart is large", "left lung clear"]
        assert np.array_equal(fetched(texts), local(texts))
        assert any("chexbert.pth" in request for request in hub.requests)
        del hub.repositories["StanfordAIMI/RRG_scorers"]
    with used_hub(str(tmp_path / "empty")), pytest.raises(DataError, match=r"RRG_scorers: needed chexbert\.pth from the"):
        make_labeler(LabelerOptions("chexbert", HUB), default="rule")
    assert absolute_checkpoint(HUB) == HUB
    assert absolute_checkpoint(Path("a.pth")) == Path.cwd() / "a.pth"

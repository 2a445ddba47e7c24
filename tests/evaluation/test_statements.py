"""What reports say of change, severity, rare diseases and what they copy: by hand, and against the phantom's own truth."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from diffrgen.evaluation.statements import COUNTS, SCORES, Statements, StatementTruth, rare_diseases
from diffrgen.labels import DISEASES, FINDINGS
from diffrgen.metrics.bootstrap import bootstrap_interval
from diffrgen.phantom import GrammarParser, PhantomOptions, write_phantom
from diffrgen.records import Study, read_annotation

# The truth of two studies: a follow-up with three changes, and a first study with a subtle pneumonia.
FOLLOW_UP = (
    "no significant change in a moderate right pneumothorax . a new small left pleural effusion . "
    "the previously seen pulmonary edema has resolved . a fracture of a left lower rib is seen ."
)
FIRST = "there is a large left pleural effusion . possible pneumonia in the left lower lobe . heart size is normal ."
SAID = (
    # severity wrong, change right; a finding that the neighbours have and the image has not, with their change
    "no significant change in a small right pneumothorax . the heart is severely enlarged . "
    "no significant change in a moderate pulmonary edema .",
    # right with severity; the subtle finding said positive; a false finding that no neighbour has
    "there is a large left pleural effusion . pneumonia in the left lower lobe is present . "
    "no significant change in a small right pneumothorax .",
)
RETRIEVED = (
    ["no significant change in a moderate pulmonary edema .", "the heart is mildly enlarged ."],
    ["there is a large left pleural effusion .", "the heart is mildly enlarged . no pneumothorax is seen ."],
)


def study(name: str, report: str, **fields) -> Study:
    return Study(id=name, report=report, images=(Path("none.png"),), split="test", **fields)


def states(*positive: str) -> tuple[int, ...]:
    return tuple(int(name in positive) for name in FINDINGS)


@pytest.fixture
def truth() -> StatementTruth:
    training = [study("t0", "", labels=states(*DISEASES)), study("t1", "", labels=states(*DISEASES[:9]))]
    return StatementTruth.of([study("b", FOLLOW_UP, prior_id="a"), study("c", FIRST)], training)


def test_wordings_of_this_file_are_read_as_meant():
    told = GrammarParser().parse(FOLLOW_UP).findings
    assert {name: (reading.state, reading.severity, reading.change) for name, reading in told.items()} == {
        "pneumothorax": (1, "moderate", "unchanged"),
        "pleural effusion": (1, "mild", "new"),
        "edema": (2, None, "resolved"),
        "fracture": (1, None, None),
    }


def test_counts_by_hand(truth):
    assert truth.rare == ("pleural effusion", "pleural other", "fracture", "support devices")
    follow_up, first = (dict(zip(COUNTS, row, strict=True)) for row in truth.score(SAID, RETRIEVED).counts.tolist())
    assert follow_up == {
        "change_right": 1,  # pneumothorax unchanged; edema unchanged is wrong, and copied
        "change_said": 2,
        "change_true": 3,
        "change_copied": 1,
        "first": 0,
        "first_with_change": 0,
        "severity_right": 0,
        "severity_told": 1,
        "rare_found": 0,
        "rare_true": 2,  # effusion and fracture
        "finding_said": 3,
        "finding_false": 2,  # cardiomegaly and edema, both in a neighbour's report
        "finding_copied": 2,
        "finding_absent": 10,  # 13 less pneumothorax, effusion, fracture
        "finding_offered": 2,
    }
    assert first == {
        "change_right": 0,
        "change_said": 1,
        "change_true": 0,
        "change_copied": 0,
        "first": 1,
        "first_with_change": 1,
        "severity_right": 1,
        "severity_told": 1,
        "rare_found": 1,
        "rare_true": 1,
        "finding_said": 3,
        "finding_false": 1,  # pneumothorax; the subtle pneumonia is there
        "finding_copied": 0,
        "finding_absent": 11,
        "finding_offered": 1,  # cardiomegaly
    }


def test_scores_by_hand(truth):
    scores = truth.score(SAID, RETRIEVED).scores
    assert scores == pytest.approx(
        {
            "change_precision": 1 / 3,
            "change_recall": 1 / 3,
            "change_f1": 2 / 6,
            "change_without_prior": 1.0,
            "severity_accuracy": 1 / 2,
            "rare_recall": 1 / 3,
            "false_findings": 3 / 6,
            "hallucination": 3 / 9,
            "false_where_offered": 2 / 3,
            "false_elsewhere": 1 / 18,
        }
    )


def test_the_truth_itself_makes_no_mistake_and_silence_has_no_precision(truth):
    perfect = truth.score([FOLLOW_UP, FIRST], RETRIEVED).scores
    whole = {"change_precision", "change_recall", "change_f1", "severity_accuracy", "rare_recall"}
    assert perfect == {name: float(name in whole) for name in SCORES}
    silent = truth.score(["", ""], [(), ()]).scores
    assert {name for name, value in silent.items() if value is None} == {
        *("change_precision", "severity_accuracy", "false_findings", "hallucination", "false_where_offered"),
    }
    assert silent["change_recall"] == silent["rare_recall"] == silent["change_without_prior"] == 0.0


def test_counts_of_runs_add_up_and_give_intervals(truth):
    said = truth.score(SAID, RETRIEVED)
    perfect = truth.score([FOLLOW_UP, FIRST], RETRIEVED)
    both = Statements(said.counts + perfect.counts, said.rare)
    # (1 + 3) right of (3 + 3) said
    assert both.scores["change_precision"] == pytest.approx(4 / 6)
    # A resample holds the follow-up study 0, 1 or 2 times: precision 0/1, 1/3 or 1/2.
    assert said.intervals()["change_precision"] == pytest.approx((0.0, 0.5))
    assert said.intervals()["rare_recall"] == bootstrap_interval(said.counts[:, 8:10], lambda sums: sums[:, 0] / sums[:, 1])
    content = json.loads(json.dumps(said.to_dict()))
    assert (content["studies"], content["counts"]["finding_said"]) == (2, 6)
    assert content["scores"]["hallucination"] == pytest.approx(1 / 3)


def test_rare_diseases_are_the_rarest_third():
    labels = np.zeros((13, 14), dtype=np.int64)
    for column in range(13):
        labels[: 13 - column, column] = 1
    labels[:, 0] = 3  # uncertain is not positive: never seen
    assert rare_diseases(labels) == (DISEASES[0], DISEASES[12], DISEASES[11], DISEASES[10])


def test_reports_and_neighbours_must_be_those_of_the_studies(truth):
    with pytest.raises(ValueError, match="of 2 studies, got 1 and 2"):
        truth.score(SAID[:1], RETRIEVED)


def test_references_tell_the_whole_truth_of_the_annotation(tmp_path):
    """What StatementTruth reads from the reports is the annotation's `findings`: states, severities and changes."""
    annotation = write_phantom(tmp_path / "phantom", PhantomOptions(studies=120, size=64), workers=1, progress=False)
    records = {record["id"]: record for split in json.loads(annotation.read_text()).values() for record in split}
    splits = read_annotation(annotation)
    truth = StatementTruth.of(list(splits), splits.train)
    changes = 0
    for study, parsed, first in zip(splits, truth.reports, truth.first, strict=True):
        findings = records[study.id]["findings"]
        assert first == (records[study.id]["prior_id"] is None)
        for name in DISEASES:
            true = findings.get(name, {"state": 0, "severity": None, "change": None})
            told = parsed.findings.get(name)
            if name not in findings:
                assert told is None or (told.state, told.change) == (2, None)
                continue
            assert (told.state, told.severity, told.change) == (true["state"], true["severity"], true["change"]), name
            changes += true["change"] is not None
    assert changes > 20


def test_what_is_true_is_no_copy_though_a_neighbour_has_it(truth):
    """A right change and a right finding, both in the neighbour's report too: nothing is made up."""
    effusion = "a new small left pleural effusion ."
    statements = truth.score([effusion, ""], [[effusion], ()])
    counts = dict(zip(COUNTS, statements.counts[0].tolist(), strict=True))
    assert (counts["change_said"], counts["change_right"], counts["change_copied"]) == (1, 1, 0)
    assert (counts["finding_said"], counts["finding_false"], counts["finding_copied"]) == (1, 0, 0)
    assert statements.scores["hallucination"] == 0.0

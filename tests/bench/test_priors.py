"""What is made of the earlier study: the conditions, the kinds of change and the gain, by hand and with a known writer."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import priors
import pytest

from diffrgen.evaluation.statements import COUNTS, Statements
from diffrgen.phantom import PhantomOptions
from diffrgen.pipeline.options import DataOptions
from diffrgen.pipeline.source import load_source
from diffrgen.records import Study

OLD = "there is unchanged edema . new moderate left pleural effusion ."
NEW = "there is unchanged edema . unchanged moderate left pleural effusion ."


def statements(right: list[int], said: list[int], true: list[int]) -> Statements:
    counts = np.zeros((len(right), len(COUNTS)), dtype=np.int64)
    for name, values in (("change_right", right), ("change_said", said), ("change_true", true)):
        counts[:, COUNTS.index(name)] = values
    return Statements(counts, ())


def test_kinds_of_change_by_hand():
    assert priors.kinds([OLD, OLD], [NEW, "no edema ."]) == {
        "told": {"unchanged": 2, "new": 2},
        "right": {"unchanged": 1},
        "true": {"unchanged": 2},
    }


def test_the_gain_is_the_difference_of_two_f1_and_its_interval_is_paired():
    one, other = statements([1, 1, 0], [1, 2, 1], [1, 1, 2]), statements([1, 0, 0], [1, 2, 1], [1, 1, 2])
    gain = priors.change_f1_gain(one, other)
    assert gain["difference"] == pytest.approx(4 / 8 - 2 / 8)
    low, high = gain["interval"]
    assert 0 <= low <= gain["difference"] <= high
    assert priors.change_f1_gain(one, one) == {"difference": 0.0, "interval": (0.0, 0.0)}


def test_nobody_keeps_a_study_of_their_own():
    studies = [Study(f"{patient}{number}", "", (), "test", patient_id=patient) for patient in "abc" for number in "12"]
    for one, other in zip(studies, priors.exchanged(studies), strict=True):
        assert one.patient_id != other.patient_id


def test_script_gives_each_condition_what_it_says(tmp_path, monkeypatch):
    """A writer that copies the earlier report's findings as unchanged, and tells of the image alone that nothing changed."""
    phantom, given = PhantomOptions(studies=60, size=64, follow_ups=0.5), []

    class Writer:
        settings = SimpleNamespace(data=DataOptions(data="phantom"), phantom=phantom)

        def __init__(self, run: Path) -> None:
            assert run == tmp_path

        def write(self, images, options, earlier=None):
            assert options.beams == 1
            given.append(earlier)
            for prior in earlier or [None] * len(images):
                told = "" if prior is None else NEW if prior.report is None else prior.report
                yield SimpleNamespace(report=told, neighbour_reports=())

    monkeypatch.setattr(priors, "Reporter", Writer)
    output = tmp_path / "priors.json"
    monkeypatch.setattr(sys, "argv", ["priors.py", str(tmp_path), "--beams", "1", "--output", str(output)])
    priors.main()
    splits = load_source(Writer.settings.data, phantom).splits
    follow_ups = [study for study in splits.test if study.prior_id]
    before = [splits.by_id()[study.prior_id] for study in follow_ups]
    alone, own, others, image, report = given
    assert alone is None
    assert [prior.report for prior in own] == [study.report for study in before]
    assert sorted(prior.report for prior in others) == sorted(prior.report for prior in own)
    assert all(prior.report is None for prior in image)
    assert all(prior.image is None for prior in report)
    content = json.loads(output.read_text())
    assert content["follow_ups"] == len(follow_ups) > 2
    assert content["given"]["none"]["counts"]["change_said"] == 0
    assert content["given"]["image alone"]["kinds"]["told"] == {"unchanged": 2 * len(follow_ups)}
    assert content["given"]["report alone"] == content["given"]["own"]
    assert content["change_f1_of_own_less"]["report alone"]["difference"] == 0

"""Scores of the states that prompt the decoder: is the classifier or the decoder at fault where a report is wrong?"""

from __future__ import annotations

import numpy as np
import pytest

from diffrgen.evaluation.scoring import Scores, score_beside_baselines
from diffrgen.labels import FINDINGS, State
from diffrgen.pipeline.labeler import NamedLabeler

pytestmark = pytest.mark.usefixtures("no_java")

# What each report says, and with it the truth and the prompts of the two studies.
SAID = {"first": {"edema"}, "second": {"pneumonia", "fracture"}}
TRUE = ({"edema", "pneumothorax"}, {"pneumonia"})
PROMPTED = ({"edema", "pneumothorax"}, {"pneumonia", "atelectasis"})


def as_states(*studies: set[str]) -> np.ndarray:
    return np.array([[State.POSITIVE if name in study else State.BLANK for name in FINDINGS] for study in studies])


def score(prompts: np.ndarray | None) -> Scores:
    scores = score_beside_baselines(
        {"model": list(SAID)},
        ["a reference", "another reference"],
        as_states(*TRUE),
        labeler=NamedLabeler("by hand", lambda texts: as_states(*(SAID.get(text, set()) for text in texts))),
        truth_from="data",
        training_reports=["a training report"],
        protocol="raw",
        prompts=None if prompts is None else {"model": prompts},
        baselines=False,
        resamples=0,
    )
    return scores["model"]


def test_classifier_and_decoder_are_told_apart_by_hand():
    scores = score(as_states(*PROMPTED))
    prompts = scores.prompts
    # The report: edema and pneumonia right, fracture wrong, pneumothorax left out.
    assert scores.diseases.micro.f1 == 2 * 2 / (2 * 2 + 1 + 1)
    # The classifier: all three right, atelectasis wrong.
    assert (prompts.classifier.micro.precision, prompts.classifier.micro.recall) == (3 / 4, 1.0)
    # Of four prompted diseases two are told; of three told, two were prompted.
    assert (prompts.followed.micro.precision, prompts.followed.micro.recall) == (2 / 3, 2 / 4)
    assert scores.per_study["classifier_13"].tolist() == [[2, 0, 0], [1, 1, 0]]
    assert scores.per_study["followed_13"].tolist() == [[1, 0, 1], [1, 1, 1]]
    written = scores.to_dict()
    assert written["classifier_13"]["micro"]["recall"] == 1.0
    assert written["followed_13"]["micro"]["recall"] == 0.5


def test_reports_without_prompts_have_no_such_scores():
    scores = score(None)
    assert scores.prompts is None
    assert "classifier_13" not in scores.to_dict()
    assert "classifier_13" not in scores.per_study

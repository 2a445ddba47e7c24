"""Confidence of sentences: what a report carries, and what it is computed from, by hand."""

from __future__ import annotations

import json

from diffrgen.reporting.confidence import NotMentioned, SentenceConfidence
from diffrgen.reporting.writer import WrittenReport

REPORT = "there is an effusion . bones intact ."


def sentence(text: str, *, probability: float | None, findings: dict[str, str] | None = None) -> SentenceConfidence:
    start = REPORT.index(text)
    return SentenceConfidence(
        text=text,
        start=start,
        end=start + len(text),
        findings=findings or {},
        probability=probability,
        mean_log_probability=-0.5,
        min_log_probability=-1.5,
        agreement=0.8 if findings else None,
        support=0.25,
    )


RATED = (
    sentence("there is an effusion .", probability=0.4, findings={"pleural effusion": "positive"}),
    sentence("bones intact .", probability=None),
)


def written(**more: object) -> WrittenReport:
    return WrittenReport(
        report=REPORT, states={"edema": "blank"}, positive_probability={"edema": 0.2}, neighbours=(), routing=(), **more
    )


def test_a_sentence_is_doubtful_below_the_threshold_and_never_without_a_probability():
    effusion, bones = RATED
    assert [effusion.doubtful(threshold) for threshold in (0.3, 0.4, 0.5)] == [False, False, True]
    assert not bones.doubtful(1.0)


def test_the_json_of_a_run_without_calibration_is_as_before():
    assert set(written().to_dict()) == {"report", "states", "positive_probability", "neighbours", "routing", "views"}


def test_the_json_of_a_calibrated_run_holds_the_sentences_in_order():
    content = json.loads(json.dumps(written(confidence=RATED, not_mentioned=(NotMentioned("edema", 0.75),)).to_dict()))
    assert [REPORT[one["start"] : one["end"]] for one in content["confidence"]] == ["there is an effusion .", "bones intact ."]
    assert content["confidence"][0] == {
        "text": "there is an effusion .",
        "start": 0,
        "end": 22,
        "findings": {"pleural effusion": "positive"},
        "probability": 0.4,
        "mean_log_probability": -0.5,
        "min_log_probability": -1.5,
        "agreement": 0.8,
        "support": 0.25,
    }
    assert content["confidence"][1]["probability"] is None
    assert content["not_mentioned"] == [{"finding": "edema", "probability": 0.75}]

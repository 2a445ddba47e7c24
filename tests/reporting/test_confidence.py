"""Confidence of sentences: what a report carries, and what it is computed from, by hand."""

from __future__ import annotations

import hashlib
import json
import math
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_network import random_batch, tiny_network
from transformers import GenerationMixin

from diffrgen.errors import DataError
from diffrgen.evaluation.sentences import judge_sentences, left_out, reference_states
from diffrgen.labels import DISEASES, FINDINGS, RuleLabeler, State, agreeing, probability_of_agreement
from diffrgen.model import EncodedStudy, GeneratedReports, StudyInputs
from diffrgen.page.words import confidence_words
from diffrgen.pipeline.options import GenerationOptions
from diffrgen.pipeline.run_folder import RunFolder
from diffrgen.pipeline.settings import save_json
from diffrgen.reporting.calibration import FEATURES, FILE, ConfidenceCalibration, RisingCurve, read_calibration
from diffrgen.reporting.confidence import NotMentioned, SentenceConfidence
from diffrgen.reporting.rater import SentenceRater
from diffrgen.reporting.writer import GeneratedReport
from diffrgen.text import report_sentences, train_tokenizer

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


def written(**more: object) -> GeneratedReport:
    return GeneratedReport(
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


def tokenizer_of(*reports: str):
    return train_tokenizer(reports, min_frequency=1)


def generated(tokenizer, report: str, scores: list[float], probability: dict[str, tuple[float, ...]]) -> GeneratedReports:
    """A report of one study: its tokens' log-probabilities, and the probabilities of blank, positive, negative, uncertain."""
    ids = [*tokenizer(report, add_special_tokens=False).input_ids, tokenizer.sep_token_id, tokenizer.pad_token_id]
    assert len(scores) == len(ids)
    states = torch.full((1, 4, len(FINDINGS)), 0.25)
    for name, values in probability.items():
        states[0, :, FINDINGS.index(name)] = torch.tensor(values)
    return GeneratedReports(
        torch.tensor([ids]), states.argmax(1), states, (), token_log_probability=torch.tensor([scores])
    )


def test_the_evidence_for_each_sentence_is_what_a_person_counts():
    report = "there is a pleural effusion . no pneumothorax or edema . the chest is seen ."
    retrieved = [
        "pleural effusion . no pneumothorax . no edema .",
        "no pleural effusion . The chest is  seen .",
        "large pleural effusion and edema . no pneumothorax .",
        "fracture .",
    ]
    tokenizer = tokenizer_of(report)
    scores = [-0.1, -0.2, -0.3, -0.4, -1.0, -0.4, *[-0.5, -0.7, -0.1, -0.2, -0.5], *[-2.0] * 5, 0.0, 0.0]
    batch = generated(
        tokenizer,
        report,
        scores,
        {
            "pleural effusion": (0.1, 0.6, 0.1, 0.2),
            "pneumothorax": (0.5, 0.1, 0.3, 0.1),
            "edema": (0.2, 0.3, 0.4, 0.1),
            "fracture": (0.05, 0.9, 0.03, 0.02),
        },
    )
    rating = SentenceRater(tokenizer, RuleLabeler()).rate(batch, 0, report, retrieved)
    effusion, pair, chest = rating.confidence
    assert [report[one.start : one.end] for one in rating.confidence] == [one.text for one in rating.confidence]
    assert [one.text for one in rating.confidence] == report_sentences(report)
    assert effusion.findings == {"pleural effusion": "positive"}
    assert (effusion.mean_log_probability, effusion.min_log_probability) == (-0.4, -1.0)
    assert (effusion.agreement, effusion.support) == (pytest.approx(0.6), 0.5)
    assert pair.findings == {"pneumothorax": "negative", "edema": "negative"}
    assert (pair.mean_log_probability, pair.min_log_probability) == (-0.4, -0.7)
    # Negative agrees with negative and blank: 0.8 for pneumothorax, 0.6 for edema. Only the first report says both.
    assert (pair.agreement, pair.support) == (pytest.approx(0.48), 0.25)
    # Names no finding: one report has the same words.
    assert (chest.findings, chest.agreement, chest.support) == ({}, None, 0.25)
    assert [one.probability for one in rating.confidence] == [None, None, None]
    assert rating.not_mentioned == ()


def test_without_retrieved_reports_there_is_no_support_and_without_scores_no_rating():
    tokenizer = tokenizer_of(REPORT)
    batch = generated(tokenizer, REPORT, [-0.5] * 10, {})
    (effusion, bones) = SentenceRater(tokenizer, RuleLabeler()).rate(batch, 0, REPORT, []).confidence
    assert (effusion.support, bones.support) == (None, None)
    with pytest.raises(ValueError, match="token_scores"):
        SentenceRater(tokenizer, RuleLabeler()).rate(replace(batch, token_log_probability=None), 0, REPORT, [])


def calibration(**changes: object) -> ConfidenceCalibration:
    """score = 2 (agreement's log-odds) / 4 - 1, and probabilities of 0.1 below -2, 0.9 above 2."""
    fields = {
        "split": "val",
        "data": None,
        "studies": 9,
        "rated": 40,
        "labeler": "rule",
        "weights": "",
        "decoding": GenerationOptions().decoding(run_tokens=12, room=60),
        "features": FEATURES,
        "means": (0.0, 0.0, 2.0, 0.0),
        "scales": (1.0, 1.0, 4.0, 1.0),
        "coefficients": (0.0, 0.0, 2.0, 0.0),
        "intercept": 0.0,
        "sentences": RisingCurve((-2.0, 2.0), (0.1, 0.9)),
        "omissions": RisingCurve((0.2, 0.8), (0.0, 0.6)),
    }
    return ConfidenceCalibration(**{**fields, **changes})


def test_a_calibration_is_applied_as_its_equation_says():
    effusion = replace(RATED[0], agreement=1 / (1 + math.exp(-3.0)))
    # score = 2 (3 - 2) / 4 = 0.5, a quarter of the way from the middle to the upper corner
    assert calibration().probability(effusion) == pytest.approx(0.5 + 0.8 * 0.5 / 4, abs=5e-4)
    assert calibration().probability(replace(effusion, agreement=1.0)) == 0.9
    assert calibration().probability(replace(effusion, agreement=0.0)) == 0.1
    assert calibration().probability(RATED[1]) is None


def test_findings_that_are_left_out_are_listed_from_one_half_on():
    positive = {"edema": 0.7, "fracture": 0.69, "pneumonia": 0.9, "lung lesion": 0.1, "no finding": 1.0}
    assert calibration().omitted(positive) == [("pneumonia", 0.6), ("edema", 0.5)]


def test_another_decoding_than_the_calibrations_is_warned_of():
    ours = calibration()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ours.warn_of(replace(ours.decoding, seed=7))
    with pytest.warns(UserWarning, match="decoded by beam 3.* these are decoded by beam 1"):
        ours.warn_of(replace(ours.decoding, beams=1))


@pytest.fixture
def run_with_weights(tmp_path: Path) -> RunFolder:
    """A folder with what a calibration is checked against."""
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    return RunFolder(tmp_path)


def test_a_run_without_a_calibration_has_none(run_with_weights):
    assert read_calibration(run_with_weights) is None


def test_a_calibration_is_read_as_it_was_kept(run_with_weights):
    digest = hashlib.sha256(b"weights").hexdigest()
    kept = calibration(weights=digest, cross_fitted={"ece": 0.1})
    save_json(kept, run_with_weights.path / FILE)
    assert read_calibration(run_with_weights) == kept


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("format_version", 2, "format_version"),
        ("features", ["support"], "features"),
        ("weights", "0" * 64, "other weights"),
        ("scales", [1, 0, 1, 1], "above 0"),
        ("means", [0, 0, 0], "means: needed 4 numbers, got 3"),
        ("intercept", math.nan, "intercept"),
        ("coefficients", [0, 0, math.inf, 0], "coefficients"),
        ("sentences", {"scores": [1, 1], "probabilities": [0.1, 0.2]}, "scores that rise"),
        ("sentences", {"scores": [1, 2], "probabilities": [0.3, 0.2]}, "do not fall"),
        ("omissions", {"scores": [1, 2], "probabilities": [0.3, 1.2]}, "from 0 to 1"),
        ("omissions", {"scores": [], "probabilities": []}, "as many"),
        ("labeler", "nobody", "labeler: needed"),
        ("studies", None, "studies: needed"),
    ],
)
def test_a_calibration_that_is_not_the_runs_is_refused_by_its_field(run_with_weights, field, value, message):
    path = run_with_weights.path / FILE
    save_json(calibration(weights=hashlib.sha256(b"weights").hexdigest()), path)
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, field: value}))
    with pytest.raises(DataError, match=message) as refused:
        read_calibration(run_with_weights)
    assert str(path) in str(refused.value)


def test_what_is_no_json_is_refused(run_with_weights):
    (run_with_weights.path / FILE).write_bytes(b"\x80\x04pickled")
    with pytest.raises(DataError, match=r"confidence\.json: .*JSON"):
        read_calibration(run_with_weights)


@pytest.mark.parametrize(
    ("said", "agrees"),
    [
        ("positive", {"positive"}),
        ("uncertain", {"positive", "uncertain"}),
        ("negative", {"negative", "blank"}),
        ("blank", {"positive", "negative", "uncertain", "blank"}),
    ],
)
def test_agreement_is_the_documented_table(said, agrees):
    states = np.array(list(State))
    found = agreeing(np.full(4, State[said.upper()]), states)
    assert {State(state).name.lower() for state in states[found]} == agrees
    probability = np.array([[0.1], [0.2], [0.3], [0.4]])  # blank, positive, negative, uncertain
    expected = {"positive": 0.2, "uncertain": 0.6, "negative": 0.4, "blank": 1.0}[said]
    assert probability_of_agreement(np.array([State[said.upper()]]), probability) == pytest.approx([expected])


def test_sentences_are_judged_by_their_study():
    effusion, bones = RATED
    both = replace(effusion, findings={"pleural effusion": "positive", "fracture": "negative"}, probability=0.7)
    reports = [written(confidence=RATED), written(confidence=(bones,)), written(confidence=(both, effusion))]
    truth = reference_states(["pleural effusion .", "", "pleural effusion and fracture ."], RuleLabeler())
    judged = judge_sentences(reports, truth)
    assert judged.correct.tolist() == [True, False, True]
    assert judged.study.tolist() == [0, 2, 2]
    assert judged.probability.tolist() == [0.4, 0.7, 0.4]
    assert judged.features[0].tolist() == [-0.5, -1.5, pytest.approx(math.log(4)), 0.25]
    assert judged.without_findings == 2


def test_what_reports_leave_out_is_counted_against_the_references():
    likely = dict.fromkeys(DISEASES, 0.1) | {"fracture": 0.8}
    reports = [replace(written(not_mentioned=(NotMentioned("fracture", 0.6),)), positive_probability=likely)]
    truth = reference_states(["fracture . edema ."], RuleLabeler())
    omissions = left_out(reports, truth, RuleLabeler())
    # The report tells of an effusion alone.
    assert (len(omissions.stated), omissions.stated.sum()) == (len(DISEASES) - 1, 2)
    assert (omissions.listed & omissions.stated).sum() == 1
    assert omissions.positive.max() == 0.8


def test_each_sentence_of_a_page_says_how_sure_the_run_is():
    effusion, bones = RATED
    assert confidence_words(effusion) == "40% likely to be true"
    assert confidence_words(effusion, below=0.5) == "doubtful: 40% likely to be true"
    assert confidence_words(replace(effusion, probability=0.9982)) == "more than 99% likely to be true"
    assert confidence_words(replace(effusion, probability=0.0018)) == "less than 1% likely to be true"
    assert confidence_words(bones, below=1.0) == "mentions no finding, so it is not rated"


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("cached", [True, False])
def test_token_scores_are_those_of_one_pass_over_the_whole_report(beams, cached):
    """With a token forbidden, so that scores after processing would differ from the network's own."""
    network, batch = tiny_network(), random_batch(size=4)
    inputs = StudyInputs.of(batch)
    settings = {"num_beams": beams, "max_new_tokens": 12, "use_cache": cached, "suppress_tokens": [11, 12]}
    found = network.write_reports(inputs, token_scores=True, **settings)
    assert torch.equal(found.sequences, network.write_reports(inputs, **settings).sequences)
    real = found.sequences != network.config.pad_token_id
    labels = found.sequences.masked_fill(~real, -100)
    images = {name: batch[name] for name in ("pixel_values", "retrieved", "retrieved_mask")}
    with torch.no_grad():
        logits = network(**images, states=found.states, labels=labels).logits  # (B, T, V)
    expected = logits.log_softmax(-1).gather(2, found.sequences[..., None])[..., 0].masked_fill(~real, 0.0)
    torch.testing.assert_close(found.token_log_probability, expected, rtol=0, atol=2e-5)
    assert (found.token_log_probability[real] < 0).all()


@pytest.mark.parametrize("cached", [True, False])
def test_token_scores_are_those_that_generation_chose_by(cached):
    """Against the logits of transformers' greedy search, step by step, with and without a cache."""
    network, inputs = tiny_network(), StudyInputs.of(random_batch(size=4))
    found = network.write_reports(inputs, token_scores=True, num_beams=1, max_new_tokens=12)
    encoded = network.encode(inputs)
    steps = GenerationMixin.generate(
        network,
        encoder_outputs=EncodedStudy(encoded.last_hidden_state),
        attention_mask=encoded.memory_mask,
        decoder_input_ids=network.prompt_ids(found.states),
        **{"num_beams": 1, "max_new_tokens": 12, "use_cache": cached},
        return_dict_in_generate=True,
        output_logits=True,
    )
    logits = torch.stack(steps.logits, dim=1)  # (B, T, V)
    real = found.sequences != network.config.pad_token_id
    chosen = logits.log_softmax(-1).gather(2, found.sequences[..., None])[..., 0]
    torch.testing.assert_close(found.token_log_probability[real], chosen[real], rtol=0, atol=2e-5)
    assert not found.token_log_probability[~real].any()


def test_reports_without_token_scores_have_none():
    assert tiny_network().write_reports(StudyInputs.of(random_batch()), max_new_tokens=3).token_log_probability is None

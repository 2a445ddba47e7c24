"""Prompts that a report follows, denies and contradicts: counted by hand, and told apart from what it leaves out."""

from __future__ import annotations

import numpy as np
import pytest

from diffrgen.evaluation.agreement import COUNTS, PromptAgreement
from diffrgen.evaluation.scoring import score_reports
from diffrgen.labels import FINDINGS, RuleLabeler, State

POSITIVE, NEGATIVE, UNCERTAIN = State.POSITIVE, State.NEGATIVE, State.UNCERTAIN
PROMPTS = (
    {"edema": POSITIVE, "cardiomegaly": POSITIVE, "pleural effusion": POSITIVE, "pneumothorax": NEGATIVE},
    {"pneumothorax": NEGATIVE, "atelectasis": NEGATIVE, "fracture": UNCERTAIN, "no finding": NEGATIVE},
    {"no finding": POSITIVE, "lung opacity": POSITIVE},
    {},
)
# As the rule-based labeler reads them; checked below.
REPORTS = (
    "pulmonary edema is seen . the heart is normal in size . no pneumothorax .",  # effusion is left out
    "there is a left pneumothorax . no rib fracture . normal chest .",  # a doubt may be settled either way
    "patchy opacity in the left base . small pleural effusion .",  # an effusion that no prompt speaks of
    "the heart is enlarged .",
)


def states(*studies: dict[str, State]) -> np.ndarray:
    return np.array([[study.get(name, State.BLANK) for name in FINDINGS] for study in studies])


def agreement() -> PromptAgreement:
    return PromptAgreement.of(states(*PROMPTS), RuleLabeler()(REPORTS))


def test_labeler_reads_the_reports_of_this_file_as_meant():
    said = [dict(zip(FINDINGS, row, strict=True)) for row in RuleLabeler()(REPORTS).tolist()]
    assert said[0] == dict.fromkeys(FINDINGS, 0) | {"edema": POSITIVE, "cardiomegaly": NEGATIVE, "pneumothorax": NEGATIVE}
    assert (said[1]["pneumothorax"], said[1]["fracture"]) == (POSITIVE, NEGATIVE)
    assert (said[2]["lung opacity"], said[2]["pleural effusion"], said[2]["no finding"]) == (POSITIVE, POSITIVE, 0)


def test_counts_by_hand():
    counts = [dict(zip(COUNTS, row, strict=True)) for row in agreement().counts.tolist()]
    zero = dict.fromkeys(COUNTS, 0) | {"study": 1}
    assert counts[0] == zero | {"contradicted_study": 1, "positive": 3, "negative": 1, "told": 1, "denied": 1}
    assert counts[1] == zero | {"contradicted_study": 1, "negative": 2, "asserted": 1}
    # "No finding" counts on neither side, and what no prompt speaks of contradicts none.
    assert counts[2] == zero | {"positive": 1, "told": 1}
    assert counts[3] == zero


def test_scores_by_hand_and_their_intervals():
    measured = agreement()
    assert measured.scores == {
        "followed": 2 / 4,
        "denied": 1 / 4,
        "asserted": 1 / 3,
        "contradicted": 2 / 7,
        "contradicted_studies": 2 / 4,
    }
    for name, (low, high) in measured.intervals(resamples=200).items():
        assert 0 <= low <= measured.scores[name] <= high <= 1
    written = measured.to_dict(resamples=0)
    assert written["intervals"]["denied"] is None
    assert written["counts"] == {**written["counts"], "positive": 4, "told": 2, "denied": 1, "asserted": 1}


def test_without_a_prompt_there_is_nothing_to_follow():
    silent = PromptAgreement.of(states({}, {}), RuleLabeler()(REPORTS[:2])).scores
    assert silent == dict.fromkeys(["followed", "denied", "asserted", "contradicted"]) | {"contradicted_studies": 0.0}


def test_states_of_other_studies_are_refused():
    with pytest.raises(ValueError, match="same shape"):
        PromptAgreement.of(states({}, {}), states({}))


@pytest.mark.usefixtures("no_java")
@pytest.mark.filterwarnings("ignore:METEOR is not scored")
def test_language_scores_are_given_with_marks_and_without():
    said = ["the heart is normal .", "there is no effusion ."]
    true = ["the XXXX heart is normal .", "___ there is no effusion ."]
    neither = states({}, {})

    def score(references: list[str]):
        return score_reports(said, references, neither, neither, labeler="rule", truth_from="data", resamples=0)

    marked = score(true)
    assert marked.corpus["bleu_4"] < 0.9
    assert marked.without_marks["bleu_4"] == pytest.approx(1, abs=1e-6)
    assert marked.to_dict()["nlg_without_marks"] == marked.without_marks
    # Without a mark there is no second score, and a reference of marks alone is no reference.
    assert "nlg_without_marks" not in score(said).to_dict()
    assert score([true[0], "XXXX"]).without_marks["rouge_l"] == pytest.approx(1)

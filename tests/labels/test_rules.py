"""RuleLabeler on sentences whose states are known."""

from __future__ import annotations

import time

import numpy as np
import pytest

from diffrgen.labels import FINDINGS, NO_FINDING, RuleLabeler, State
from diffrgen.labels.patterns import Gaps, compile_groups
from diffrgen.labels.sentences import split_sentences

POS, NEG, UNC = State.POSITIVE, State.NEGATIVE, State.UNCERTAIN
ECM, CMG, OPA, LES, EDE, CON, PNA, ATE, PTX, EFF, PLO, FRA, DEV, NOF = FINDINGS
# Every finding that is not named is blank; "no finding" is looked at only where it is named.
SENTENCES: list[tuple[str, dict[str, State]]] = [
    ("The heart is enlarged.", {CMG: POS}),
    ("Heart size is mildly enlarged, pulmonary vascularity within normal limits.", {CMG: POS}),
    ("Stable mild cardiomegaly.", {CMG: POS}),
    ("Borderline cardiomegaly.", {CMG: POS}),
    ("Cardio megaly.", {CMG: POS}),
    ("Increased cardiothoracic ratio.", {CMG: POS}),
    ("The heart size is slightly above normal.", {CMG: POS}),
    ("Borderline heart size.", {CMG: UNC}),
    ("Heart size upper limits of normal.", {CMG: NEG}),
    ("Heart size is upper limits of normal or mildly enlarged.", {CMG: UNC}),
    ("Heart size is normal.", {CMG: NEG, NOF: POS}),
    ("The heart is not significantly enlarged.", {CMG: NEG}),
    ("Normal heart size and mediastinal contours.", {CMG: NEG, ECM: NEG}),
    ("Heart and mediastinum within normal limits.", {CMG: NEG, ECM: NEG}),
    ("The cardiomediastinal silhouette is normal in size and contour.", {ECM: NEG}),
    ("Cardio mediastinal silhouette is unremarkable.", {ECM: NEG}),
    ("There is widening of the mediastinum.", {ECM: POS}),
    ("The mediastinum is widened.", {ECM: POS}),
    ("The lungs are clear.", {NOF: POS}),
    ("Right lower lobe opacity.", {OPA: POS}),
    ("Patchy bibasilar airspace disease.", {OPA: POS}),
    ("No focal airspace disease.", {OPA: NEG, NOF: POS}),
    ("Right middle lobe infiltrate.", {OPA: POS}),
    ("Increased interstitial markings.", {OPA: POS}),
    ("There is scarring in the right lung base.", {OPA: POS}),
    ("Calcified scar in the soft tissues.", {}),
    ("Hazy opacities may represent pneumonia.", {OPA: POS, PNA: UNC}),
    ("Left lower lobe consolidation.", {CON: POS}),
    ("No focal consolidation, pleural effusion, or pneumothorax.", {CON: NEG, EFF: NEG, PTX: NEG, NOF: POS}),
    ("no focal consolidation pleural effusion or pneumothorax", {CON: NEG, EFF: NEG, PTX: NEG}),
    ("Negative for pneumothorax or pleural effusion.", {PTX: NEG, EFF: NEG}),
    ("Lungs are free of focal consolidation or edema.", {CON: NEG, EDE: NEG}),
    ("6 mm nodule in the left upper lobe.", {LES: POS}),
    ("Calcified nodule in the right upper lobe.", {LES: POS, NOF: State.BLANK}),
    ("Nodular density in the lingula.", {LES: POS, OPA: POS}),
    ("Calcified granuloma in the right lung.", {NOF: State.BLANK}),
    ("No suspicious nodules or masses.", {LES: NEG}),
    ("Left breast mass.", {}),
    ("Right hilar mass.", {NOF: State.BLANK}),
    ("Nodular opacities are calcified granulomas.", {OPA: POS}),
    ("Nodular density, likely nipple shadow.", {}),
    ("Bony overlap could obscure a small pulmonary nodule.", {}),
    ("Mild pulmonary edema.", {EDE: POS}),
    ("Pulmonary vascular congestion.", {EDE: UNC}),
    ("Congestive heart failure.", {EDE: POS}),
    ("Mild CHF.", {EDE: POS}),
    ("No evidence to suggest CHF.", {EDE: NEG, NOF: POS}),
    ("No heart failure, cardiomegaly unchanged.", {EDE: NEG, CMG: POS}),
    ("Cardiomegaly without overt edema.", {CMG: POS, EDE: NEG}),
    ("Resolved interstitial edema.", {EDE: NEG}),
    ("Soft tissue edema of the chest wall.", {}),
    ("Left lower lobe pneumonia.", {PNA: POS}),
    ("No evidence of pneumonia.", {PNA: NEG}),
    ("Nothing to suggest pneumonia.", {PNA: NEG}),
    ("Pneumonia cannot be excluded.", {PNA: UNC}),
    ("Cannot exclude a superimposed infection.", {PNA: UNC}),
    ("Follow up to rule out pneumonia.", {PNA: UNC}),
    ("Pneumonia was ruled out.", {PNA: NEG}),
    ("Evaluate for pneumonia.", {}),
    ("Probable right lower lobe pneumonia.", {PNA: POS}),
    ("Sequela of prior granulomatous infection.", {NOF: State.BLANK}),
    ("Bibasilar atelectasis.", {ATE: POS}),
    ("Bibasilar scarring or atelectasis.", {OPA: UNC, ATE: UNC}),
    ("Streaky opacity, atelectasis versus infiltrate.", {OPA: POS, ATE: UNC}),
    ("Collapse of the left lower lobe.", {ATE: POS}),
    ("The right lung is collapsed.", {ATE: POS}),
    ("Collapse of the T12 vertebral body.", {}),
    ("Small right apical pneumothorax.", {PTX: POS}),
    ("The previously seen pneumothorax has resolved.", {PTX: NEG}),
    ("Pleural effusion and pneumothorax are not seen.", {EFF: NEG, PTX: NEG}),
    ("Right hydropneumothorax.", {PTX: POS, EFF: POS}),
    ("Moderate left pleural effusion.", {EFF: POS}),
    ("No change in right pleural effusion.", {EFF: POS}),
    ("No significant interval change of the left pleural effusion.", {EFF: POS}),
    ("No increase in the pleural effusion.", {EFF: POS}),
    ("No pneumothorax, stable small left effusion.", {PTX: NEG, EFF: POS}),
    ("No pneumothorax but there is a left pleural effusion.", {PTX: NEG, EFF: POS}),
    ("The effusion has not completely resolved.", {EFF: POS}),
    ("Near complete resolution of the left effusion.", {EFF: POS}),
    ("There may also be a small bilateral pleural effusion.", {EFF: UNC}),
    ("Pericardial effusion.", {}),
    ("Blunting of the left costophrenic angle.", {EFF: UNC}),
    ("The costophrenic angles are sharp.", {EFF: NEG}),
    ("Left apical pleural thickening.", {PLO: POS}),
    ("Calcified pleural plaques.", {PLO: POS}),
    ("Old healed left rib fractures.", {FRA: POS}),
    ("No displaced rib fracture.", {FRA: NEG}),
    ("Degenerative changes of the thoracic spine.", {NOF: State.BLANK}),
    ("No acute bony abnormality.", {NOF: POS}),
    ("Left-sided pacemaker in place.", {DEV: POS, NOF: POS}),
    ("Right PICC with tip in the SVC.", {DEV: POS}),
    ("Interval removal of the endotracheal tube.", {DEV: NEG}),
    ("The endotracheal tube has been removed.", {DEV: NEG}),
    ("Emphysema.", {NOF: State.BLANK}),
    ("Lungs are hyperexpanded.", {NOF: State.BLANK}),
    ("In the appropriate clinical setting this is compatible with pneumonia.", {PNA: UNC}),
    ("Differential diagnosis includes infection, pulmonary edema, atelectasis.", {PNA: UNC, EDE: UNC, ATE: UNC}),
]


@pytest.fixture(scope="module")
def labeler():
    return RuleLabeler()


@pytest.mark.parametrize(("text", "expected"), SENTENCES, ids=[text for text, _ in SENTENCES])
def test_sentence(labeler, text, expected):
    states = labeler([text])[0]
    got = {name: State(value) for name, value in zip(FINDINGS, states, strict=True) if value}
    expected = {name: state for name, state in expected.items() if state} | (
        {} if NOF in expected else {NOF: got[NOF]} if NOF in got else {}
    )
    assert got == expected


@pytest.mark.parametrize(
    ("text", "finding", "chexpert", "openi"),
    [
        ("Bibasilar scarring or atelectasis.", ATE, UNC, POS),
        ("Lymph node versus nodule.", LES, UNC, POS),
        ("Borderline heart size.", CMG, UNC, POS),
        ("Possible pneumonia or atelectasis.", ATE, UNC, UNC),
        ("Atelectasis may be present.", ATE, UNC, UNC),
        ("No effusion or atelectasis.", ATE, NEG, NEG),
    ],
)
def test_conventions_differ_in_choices_alone(text, finding, chexpert, openi):
    column = FINDINGS.index(finding)
    assert RuleLabeler(convention="chexpert")([text])[0, column] == chexpert
    assert RuleLabeler(convention="openi")([text])[0, column] == openi


@pytest.mark.parametrize(
    ("text", "state"),
    [
        # Five words between the two findings, and six.
        ("Pneumonia in the left base or atelectasis.", UNC),
        ("Pneumonia in the left lower lobe or atelectasis.", POS),
    ],
)
def test_a_choice_reaches_over_five_words(labeler, text, state):
    states = labeler([text])[0]
    assert [states[FINDINGS.index(name)] for name in (PNA, ATE)] == [state, state]


def test_report_keeps_the_strongest_state(labeler):
    negative, uncertain, positive = "No effusion.", "Possible effusion.", "Small effusion."
    column = FINDINGS.index(EFF)
    for texts, state in (
        ((negative, uncertain), UNC),
        ((uncertain, positive, negative), POS),
        ((positive, negative), POS),
        ((negative, negative), NEG),
    ):
        assert labeler([" ".join(texts)])[0, column] == state


@pytest.mark.parametrize(
    ("text", "state"),
    [
        ("", State.BLANK),
        (" . . ", State.BLANK),
        ("Clear lungs.", State.POSITIVE),
        ("Pacemaker. No effusion.", State.POSITIVE),
        ("Pacemaker. Possible effusion.", State.BLANK),
        ("Clear lungs. Hiatal hernia.", State.BLANK),
    ],
)
def test_no_finding(labeler, text, state):
    assert labeler([text])[0, NO_FINDING] == state


def test_result_is_int64_and_in_order(labeler):
    texts = ["Cardiomegaly.", "", "Effusion."]
    states = labeler(texts)
    assert states.dtype == np.int64
    assert states.shape == (3, 14)
    np.testing.assert_array_equal(states, np.concatenate([labeler([text]) for text in texts]))
    assert labeler([]).shape == (0, 14)
    with pytest.raises(ValueError, match="got one string"):
        labeler("Cardiomegaly.")


def test_sentences_keep_decimals_and_drop_numbering():
    text = "1. A 2.5 cm nodule.  2. Atelectasis/scar,\nleft-sided.\n\nClear"
    assert split_sentences(text) == ["a 2.5 cm nodule", "atelectasis / scar , left sided", "clear"]


def test_phrase_language():
    gaps = Gaps(filler=("is", "very"), barrier=("but",))
    pattern = compile_groups({"first": ["heart|cor ~ big"], "second": ["lung* ... small?  opacit*"]}, gaps)
    assert pattern.search("the heart is very big").lastgroup == "first"
    assert pattern.search("the heart looks big") is None
    assert pattern.search("lungs with a opacities").lastgroup == "second"
    assert pattern.search("lungs but opacities") is None
    with pytest.raises(ValueError, match=r"got '\(a\)'"):
        compile_groups({"x": ["(a)"]}, gaps)
    with pytest.raises(ValueError, match="not optional"):
        compile_groups({"x": ["a b?"]}, gaps)


def test_speed_without_memory():
    # 10,000 reports of eight sentences in 20 s is the bar; no sentence is remembered here.
    texts = [" ".join(text for text, _ in SENTENCES[start : start + 8]) for start in range(0, 64, 8)] * 40
    labeler = RuleLabeler(remember=0)
    started = time.process_time()
    labeler(texts)
    assert (time.process_time() - started) / len(texts) < 20 / 10_000

"""The phantom's reports: exact labels, severities, sides and changes out of the text, and rich wording."""

from __future__ import annotations

import re
from collections import Counter, defaultdict

import numpy as np
import pytest

from diffrgen.labels.findings import FINDINGS, NO_FINDING, State
from diffrgen.phantom import GrammarParser, PhantomOptions
from diffrgen.phantom.language.codebook import load_codebook
from diffrgen.phantom.language.grammar import Report, write_report
from diffrgen.phantom.language.lexicon import tokenise
from diffrgen.phantom.language.wordings import SEVERITY_SLOTS, load_wordings
from diffrgen.phantom.patients.anatomy import Anatomy
from diffrgen.phantom.patients.evolution import grade_change
from diffrgen.phantom.patients.patient import Patient, patient_rng, sample_patient, study_counts
from diffrgen.phantom.patients.states import DISEASES, SIDED, SUPPORT_DEVICES, ZONED, Grade, StudyState, device_change

Case = tuple[Anatomy, StudyState, Report]


@pytest.fixture(scope="module")
def patients() -> list[Patient]:
    options = PhantomOptions(studies=4000, seed=3)
    return [sample_patient(options, index, count) for index, count in enumerate(study_counts(options))]


@pytest.fixture(scope="module")
def cases(patients: list[Patient]) -> list[Case]:
    options = PhantomOptions(studies=4000, seed=3)
    made = []
    for patient in patients:
        rng = patient_rng(options, patient.index, stream=1)
        made += [(patient.anatomy, study, write_report(patient.anatomy, study, rng)) for study in patient.studies]
    return made


def as_wordpiece(text: str) -> str:
    """Space a text as a lower-casing BERT tokenizer decodes it."""
    return re.sub(r"([.,-])", r" \1 ", text.lower()).replace("  ", " ").strip()


def truth(study: StudyState) -> dict[str, int]:
    told = {name: int(state.state) for name, state in study.findings.items()}
    if study.devices:
        told[SUPPORT_DEVICES] = 1 if study.present_devices else 2
    return told


def without_commas(text: str) -> str:
    """Space a text as the cleaning rules of MIMIC-CXR and IU X-ray leave it."""
    return as_wordpiece(text).replace(" ,", "")


@pytest.mark.parametrize("spacing", [str, str.upper, as_wordpiece, without_commas])
def test_parser_returns_the_labels_of_every_report(cases: list[Case], spacing) -> None:
    texts = [spacing(report.text) for _, _, report in cases]
    expected = np.array([report.labels for _, _, report in cases])
    found = GrammarParser()(texts)
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found, expected)


def test_labels_tell_the_truth(cases: list[Case]) -> None:
    for _, study, report in cases:
        told = truth(study)
        for name, label in zip(FINDINGS[:13], report.labels, strict=False):
            assert label == told[name] if name in told else label in (State.BLANK, State.NEGATIVE), name
        assert report.labels[NO_FINDING] == int(not study.present)


def test_parser_reads_severity_side_zone_and_change_exactly(cases: list[Case]) -> None:
    parser = GrammarParser()
    checked = Counter()
    for _, study, report in cases:
        parsed = parser.parse(as_wordpiece(report.text))
        assert parsed.partial == parsed.unmatched == 0, report.text
        for name, state in study.findings.items():
            reading = parsed.findings[name]
            assert (reading.severity, reading.change) == (state.severity, state.change), report.text
            if state.grade > Grade.ABSENT:
                assert (reading.side, reading.zone) == (state.side, state.zone), report.text
            checked[state.change] += 1
        if study.devices:
            assert parsed.findings[SUPPORT_DEVICES].change == device_change(study.devices), report.text
            kinds = Counter((device.kind, device.change) for device in study.devices)
            assert Counter((device.kind, device.change) for device in parsed.devices) == kinds
    assert min(checked[change] for change in (None, "new", "increased", "decreased", "unchanged", "resolved")) > 50


def test_findings_have_side_and_zone_where_they_apply(cases: list[Case]) -> None:
    for _, study, _ in cases:
        for name, state in study.findings.items():
            assert (state.side is not None) == (name in SIDED)
            assert (state.zone is not None) == (name in ZONED)


def test_changes_follow_from_the_two_studies(patients: list[Patient]) -> None:
    followed = 0
    for patient in patients:
        assert not any(state.change for state in patient.studies[0].findings.values())
        for prior, study in zip(patient.studies, patient.studies[1:], strict=False):
            assert study.days == prior.days + study.interval > prior.days
            for name in DISEASES:
                before, now = prior.grade(name), study.grade(name)
                state = study.findings.get(name)
                assert (state is None) == (before == now == Grade.ABSENT)
                if state is not None:
                    assert state.change == grade_change(before, now)
                    if before and now:
                        assert (state.side, state.zone) == (
                            prior.findings[name].side,
                            prior.findings[name].zone,
                        )
                    followed += 1
    assert followed > 500


def test_grade_change_by_hand() -> None:
    table = {(0, 2): "new", (1, 0): "resolved", (1, 2): "increased", (4, 3): "decreased", (3, 3): "unchanged"}
    for (before, now), change in table.items():
        assert grade_change(Grade(before), Grade(now)) == change


def test_words_and_lengths(cases: list[Case]) -> None:
    words = {word for _, _, report in cases for word in re.findall(r"[a-z]+", report.text.lower())}
    lengths = np.array([len(report.text.split()) for _, _, report in cases])
    assert len(words) >= 400
    assert np.quantile(lengths, 0.02) >= 34
    assert np.quantile(lengths, 0.95) <= 92


def test_every_finding_has_eight_positive_wordings(cases: list[Case]) -> None:
    parser = GrammarParser()
    reader = load_codebook().reader
    seen: dict[str, set[tuple[str, ...]]] = defaultdict(set)
    for _, study, report in cases:
        if study.follow_up:
            continue
        for sentence in report.text.split("."):
            told = parser.parse(sentence).findings
            if len(told) == 1:
                ((name, reading),) = told.items()
                if reading.state == State.POSITIVE:
                    seen[name].add(reader(tokenise(sentence)).tokens)
    assert {name: len(seen[name]) >= 8 for name in FINDINGS[:13]} == dict.fromkeys(FINDINGS[:13], True)


def test_uncertain_and_negative_wordings_are_many() -> None:
    words = load_wordings()
    frames = len(words.frames["uncertain"]), len(words.frames["negative"])
    assert min(frames) >= 8
    assert all(words.findings[name]["negative"] for name in (*DISEASES, SUPPORT_DEVICES))
    assert all(words.findings[name]["uncertain"] for name in DISEASES)


def test_less_variety_leaves_the_truth_and_few_words(patients: list[Patient], cases: list[Case]) -> None:
    """One word a severity: with unequally many, a network that cannot see it would name the one with the fewest."""
    options = PhantomOptions(studies=4000, seed=3)
    parser, said, severities, words = GrammarParser(), [], defaultdict(set), set()
    for patient in patients[:400]:
        rng = patient_rng(options, patient.index, stream=1)
        for study in patient.studies:
            report = write_report(patient.anatomy, study, rng, variety=0.15)
            said.append((parser.parse(report.text).labels, report.labels))
            words.update(re.findall(r"[a-z]+", report.text.lower()))
            told = truth(study)
            assert {name: report.labels[FINDINGS.index(name)] for name in told} == told
    assert all(read == labels for read, labels in said)
    for slot in SEVERITY_SLOTS:
        for severity, phrases in load_wordings(0.15).slots[slot].items():
            severities[slot, severity].update(phrases)
    assert set(map(len, severities.values())) == {1}
    assert len(words) < 300


@pytest.mark.parametrize(("variety", "kept"), [(1.0, 8), (0.5, 4), (0.15, 2), (0.0, 1)])
def test_variety_keeps_the_first_wordings(variety: float, kept: int) -> None:
    every = load_wordings().findings["pleural effusion"]["full"]
    assert len(every) == 8
    assert load_wordings(variety).findings["pleural effusion"]["full"] == every[:kept]


def test_frequencies_are_long_tailed_as_in_the_clinic(cases: list[Case]) -> None:
    labels = np.array([report.labels for _, _, report in cases])
    positive = dict(zip(FINDINGS, (labels == 1).mean(0), strict=True))
    wanted = {
        "lung opacity": 0.23,
        "pleural effusion": 0.24,
        "support devices": 0.28,
        "atelectasis": 0.21,
        "cardiomegaly": 0.20,
        "edema": 0.13,
        "pneumonia": 0.07,
        "consolidation": 0.05,
        "pneumothorax": 0.04,
        "enlarged cardiomediastinum": 0.04,
        "lung lesion": 0.03,
        "fracture": 0.025,
        "pleural other": 0.015,
        "no finding": 0.33,
    }
    for name, share in wanted.items():
        assert positive[name] == pytest.approx(share, rel=0.2, abs=0.012), name
    assert np.mean([study.follow_up for _, study, _ in cases]) == pytest.approx(0.35, abs=0.03)
    edema = np.array([study.grade("edema") > 0 for _, study, _ in cases])
    heart = np.array([study.grade("cardiomegaly") > 0 for _, study, _ in cases])
    assert edema[heart].mean() > 1.5 * edema[~heart].mean()


HAND = [
    ("There is a large left pleural effusion and the heart is severely enlarged.", {9: 1, 1: 1}),
    ("No pneumothorax, but a small right pleural effusion is present.", {8: 2, 9: 1}),
    (
        "Xylophone unknown words . no focal consolidation , pleural effusion or pneumothorax .",
        {5: 2, 9: 2, 8: 2},
    ),
    ("possible pneumonia in the left lower lobe . heart size is normal .", {6: 3, 1: 2}),
    ("the previously seen pulmonary edema has resolved .", {4: 2}),
    ("no significant change in a moderate right pneumothorax .", {8: 1}),
    ("a right internal jugular catheter terminates in the right atrium .", {12: 1}),
    ("the endotracheal tube has been removed .", {12: 2}),
    ("No pulmonary edema today, clearly.", {4: 2}),
    ("The heart is enlarged.", {1: 1}),
    ("The heart is very enlarged.", {1: 1}),
    ("Heart size within is normal.", {1: 2}),
    ("The heart is enlarged not.", {}),
    ("heart size is normal , no pneumothorax and there is a moderate left effusion", {1: 2, 8: 2, 9: 1}),
    ("", {}),
]


@pytest.mark.parametrize(("text", "told"), HAND)
def test_parser_reads_recombined_sentences(text: str, told: dict[int, int]) -> None:
    expected = np.zeros(14, dtype=np.int64)
    for index, state in told.items():
        expected[index] = state
    expected[NO_FINDING] = int(not any(state in (1, 3) and index != 12 for index, state in told.items()))
    np.testing.assert_array_equal(GrammarParser()([text])[0], expected)


def test_parser_counts_what_it_cannot_read() -> None:
    parsed = GrammarParser().parse("The heart is mildly enlarged. Bananas are yellow. Big left pleural effusion here.")
    assert (parsed.sentences, parsed.partial, parsed.unmatched) == (3, 1, 1)
    assert parsed.findings["cardiomegaly"].severity == "mild"
    assert parsed.findings["pleural effusion"].side == "left"


def test_parser_wants_a_list() -> None:
    with pytest.raises(ValueError, match="one string"):
        GrammarParser()("The heart is mildly enlarged.")
    assert GrammarParser()([]).shape == (0, 14)


def test_findings_are_told_in_one_order(cases: list[Case]) -> None:
    """What is told first of two findings, if they are not told in one sentence, is the same in every report."""
    parser, before = GrammarParser(), Counter()
    for _, _, report in cases:
        sentences = [parser.parse(sentence).findings for sentence in report.text.split(".")]
        order = [next(iter(told)) for told in sentences if len(told) == 1 and next(iter(told.values())).state == 1]
        before.update({(first, second) for i, first in enumerate(order) for second in order[i + 1 :] if first != second})
    opposite = {pair: (count, before[pair[::-1]]) for pair, count in before.items() if count > 20}
    assert len(opposite) > 20
    assert not any(other for _, other in opposite.values())


def test_every_severity_has_as_many_wordings_as_the_others() -> None:
    slots = load_wordings().slots
    assert {slot: {len(phrases) for phrases in slots[slot].values()} for slot in SEVERITY_SLOTS} == {
        slot: {3} for slot in SEVERITY_SLOTS
    }

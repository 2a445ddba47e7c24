"""SeverityReader: which severity a report states of which finding."""

from __future__ import annotations

import pytest

from diffrgen.labels import FINDINGS, SEVERITY_WORDS, Severity, SeverityReader, word_class
from diffrgen.phantom import GrammarParser, PhantomOptions
from diffrgen.phantom.language.grammar import write_report
from diffrgen.phantom.patients.patient import patient_rng, sample_patient, study_counts
from diffrgen.phantom.patients.states import SEVERITIES

READ = SeverityReader()


def stated(text: str) -> dict[str, str]:
    (row,) = READ([text])
    return {name: Severity(value).name.lower() for name, value in zip(FINDINGS, row, strict=True) if value}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mild cardiomegaly .", {"cardiomegaly": "mild"}),
        ("the heart is severely enlarged .", {"cardiomegaly": "severe"}),
        ("the left effusion is small .", {"pleural effusion": "mild"}),
        ("moderate left pleural effusion and minimal atelectasis .", {"pleural effusion": "moderate", "atelectasis": "mild"}),
        ("the right effusion is small and there is atelectasis .", {"pleural effusion": "mild"}),
        ("mild cardiomegaly , large pneumothorax .", {"cardiomegaly": "mild", "pneumothorax": "severe"}),
        ("medium-grade consolidation in the right base .", {"consolidation": "moderate"}),
        # Of two mentions, the more severe.
        ("small right effusion . large left pleural effusion .", {"pleural effusion": "severe"}),
        # Only positive findings have a severity, and no word reaches beyond its sentence.
        ("no large pleural effusion .", {}),
        ("possible mild edema .", {}),
        ("there is mild scoliosis . there is a pneumothorax .", {}),
        ("the lungs are clear .", {}),
        ("", {}),
    ],
)
def test_severities_of_a_report(text, expected):
    assert stated(text) == expected


def test_one_text_is_not_a_list_of_texts():
    with pytest.raises(ValueError, match="expected a list of report texts, got one string"):
        READ("mild edema .")
    assert READ([]).shape == (0, len(FINDINGS))


def test_every_severity_has_words_and_each_word_one_severity():
    assert set(SEVERITY_WORDS) == set(Severity) - {Severity.UNSTATED}
    words = [word for words in SEVERITY_WORDS.values() for word in words]
    assert len(set(words)) == len(words)
    assert {word_class(word) for word in words} == {"severity"}


def test_severities_of_the_phantom_agree_with_its_grammar():
    """The grammar's parser is an independent reader, which knows every wording of the phantom."""
    options = PhantomOptions(studies=300, seed=3)
    reports = []
    for index, count in enumerate(study_counts(options)):
        patient, rng = sample_patient(options, index, count), patient_rng(options, index, stream=1)
        reports += [write_report(patient.anatomy, study, rng).text.lower() for study in patient.studies]
    parse = GrammarParser().parse
    agreed = said = 0
    for report, row in zip(reports, READ(reports), strict=True):
        true = {name: read.severity for name, read in parse(report).findings.items() if read.severity}
        said += len(true)
        agreed += sum(row[FINDINGS.index(name)] == SEVERITIES.index(severity) + 1 for name, severity in true.items())
    assert said > 100
    assert agreed / said > 0.9

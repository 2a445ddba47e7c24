"""Cleaning rules: hand-computed examples, properties of any text, the real IU X-Ray reports."""

from __future__ import annotations

import json
import string
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from diffrgen.text import choose_rules, clean_report

REPORT_PIECES = st.sampled_from(
    [
        "1. ",
        "2. ",
        " 3. ",
        "5.",
        "..",
        ". ",
        ".",
        "\n",
        "  ",
        "__",
        "___",
        "-",
        "/",
        "'",
        "Lungs",
        "XXXX",
        "3.5 cm",
        "é",
    ]
)
ANY_REPORT = st.one_of(st.text(), st.lists(REPORT_PIECES, max_size=20).map("".join))

# Worked out by hand from the rules' definition: (text, mimic, iu); None: as mimic.
EXAMPLES = [
    ("Heart size is normal. Lungs are clear.", "heart size is normal . lungs are clear .", None),
    ("No dot at the end", "no dot at the end .", None),
    ("FINDINGS: 1. Edema. 2. No effusion. 3. Tube, in place.", "findings edema . no effusion . tube in place .", None),
    # Each enumerator from 1 to 5, and none after.
    (
        "Seen: 1. Edema. 2. Tube. 3. Clip. 4. Wire. 5. Mass. 6. Line.",
        "seen edema . tube . clip . wire . mass . 6 . line .",
        None,
    ),
    ("Fracture of right rib 4. The rest is intact.", "fracture of right rib . the rest is intact .", None),
    ("Levels 6. and 12. remain.", "levels 6 . and 12 . remain .", None),
    ("Nodule of 3.5 cm (stable).", "nodule of 35 cm stable .", None),
    ("Follow-up: patient's x-ray, AP/PA.", "follow-up patients x-ray appa .", None),
    ("Opacity... Possibly atelectasis..", "opacity . possibly atelectasis .", None),
    ('"Stable" [sic] {a} <b> = 5% & more; why? yes! \\', "stable sic a b 5 more why yes .", None),
    ("Dr. ____ was called at ___.", "dr . was called at .", None),
    ("XXXX XXXX lungs.", "xxxx xxxx lungs .", None),
    ("Two\nlines.\nThree.", "two lines . three .", "two lines three ."),
    ("Clear.  2.  Normal.", "clear . normal .", "clear . . normal ."),
    ("normal limits.The lungs", "normal limitsthe lungs .", None),
    ("Edema. 3. 2. Effusion", "edema . effusion .", None),
    ("1.... Edema", "edema .", None),
    ("L1. A CT", "la ct .", None),
    ("A. , . B", "a . . b .", None),
    ("~ # $ | ` stay", "~ # $ | ` stay .", None),
    ("", "", None),
    (" \n ", "", None),
    ("...", "", None),
    (". , .", "", None),
]


@pytest.mark.parametrize(("text", "mimic", "iu"), EXAMPLES)
def test_examples_by_hand(text: str, mimic: str, iu: str | None) -> None:
    assert clean_report(text, rules="mimic") == mimic
    # The IU rules leave line breaks and runs of spaces until sentences have been told apart.
    assert clean_report(text, rules="iu") == (mimic if iu is None else iu)


def test_plain_only_normalises_white_space() -> None:
    assert clean_report(" The heart,\n\t(3.5 cm)  is OK. ", rules="plain") == "The heart, (3.5 cm) is OK."
    assert clean_report("\n", rules="plain") == ""


@pytest.mark.parametrize("rules", ["mimic", "iu", "plain"])
@given(text=ANY_REPORT)
@example(text="1.. 2.. 3.. a")
@example(text="1. 2. 2. 3. b 1.1. ")
@settings(max_examples=300, deadline=None)
def test_cleaning_twice_changes_nothing(rules: str, text: str) -> None:
    once = clean_report(text, rules=rules)
    assert clean_report(once, rules=rules) == once


@pytest.mark.parametrize("rules", ["mimic", "iu"])
@given(text=ANY_REPORT)
@settings(max_examples=300, deadline=None)
def test_what_a_cleaned_text_looks_like(rules: str, text: str) -> None:
    cleaned = clean_report(text, rules=rules)
    assert cleaned == "" or cleaned.endswith(" .")
    assert cleaned == cleaned.lower()
    assert cleaned.split() == (cleaned.split(" ") if cleaned else [])
    assert all(word == "." or "." not in word for word in cleaned.split())
    assert not set(cleaned) & set(string.punctuation) - set(".-~#$|`")
    assert bool(cleaned) == any(word != "." for word in cleaned.split())


def test_unknown_rules_are_refused() -> None:
    with pytest.raises(ValueError, match="expected rules out of mimic, iu, plain, got 'cxr'"):
        clean_report("a", rules="cxr")
    with pytest.raises(ValueError, match="out of auto, mimic, iu, plain, got 'cxr'"):
        choose_rules("cxr", [])


def test_the_placeholder_of_removed_names_chooses_the_rules() -> None:
    assert choose_rules("auto", ["Seen by ___.", "Clear.", "XXXX ___ ___"]) == "mimic"
    assert choose_rules("auto", ["Comparison XXXX.", "Clear."]) == "iu"
    assert choose_rules("auto", []) == "mimic"
    assert choose_rules("plain", ["XXXX"]) == "plain"


def test_the_iu_reports_are_cleaned_to_known_values(shared: Path) -> None:
    content = json.loads((shared / "iu_xray" / "annotation.json").read_text(encoding="utf-8"))
    reports = [record["report"] for split in content.values() for record in split]
    cleaned = [clean_report(report, rules="iu") for report in reports]
    assert len(cleaned) == 2955
    assert all(cleaned)
    # The vocabulary that R2Gen and its successors report for this file: words seen 3 times in training.
    counts: dict[str, int] = {}
    for text in cleaned[: len(content["train"])]:
        for word in text.split():
            counts[word] = counts.get(word, 0) + 1
    assert sum(count >= 3 for count in counts.values()) == 759
    assert choose_rules("auto", reports) == "iu"
    assert cleaned == [clean_report(report, rules="mimic") for report in reports]

"""The text taken out of MIMIC-CXR reports, for each form that their headings, addenda and wet reads have."""

from __future__ import annotations

import pytest

from diffrgen.preparation.sections import choose_text, context_name, report_sections, section_kind, split_sections
from diffrgen.records import Sections

RULE = "  " + "_" * 78
FINAL = "                                 FINAL REPORT\n"


def findings(report: str, **options: object) -> str:
    return choose_text(report, "findings", **options).text


def impression(report: str) -> str:
    return choose_text(report, "impression").text


PLAIN = f"""\
{FINAL} EXAMINATION:  CHEST (PA AND LAT)

 INDICATION:  ___ year old man with cough.

 COMPARISON:  ___.

 FINDINGS:

 The lungs are clear.  Heart size
 is normal.

 IMPRESSION:

 No acute process.
"""


def test_sections_of_a_plain_report():
    assert [(section.kind, section.text.strip()) for section in split_sections(PLAIN)] == [
        ("other", ""),
        ("context", "CHEST (PA AND LAT)"),
        ("context", "___ year old man with cough."),
        ("context", "___."),
        ("findings", "The lungs are clear.  Heart size\n is normal."),
        ("impression", "No acute process."),
    ]
    assert findings(PLAIN) == "The lungs are clear. Heart size is normal."
    assert impression(PLAIN) == "No acute process."
    assert choose_text(PLAIN, "both").text == "The lungs are clear. Heart size is normal. No acute process."
    assert findings(PLAIN.replace("\n", "\r\n")) == "The lungs are clear. Heart size is normal."


def test_every_section_of_a_report_is_kept_by_name():
    report = PLAIN.replace(" FINDINGS:", " TECHNIQUE:  PA and\n lateral.\n\n HISTORY:  COPD.\n\n FINDINGS:")
    assert report_sections(report) == Sections(
        findings="The lungs are clear. Heart size is normal.",
        impression="No acute process.",
        indication="___ year old man with cough.",
        history="COPD.",
        comparison="___.",
        technique="PA and lateral.",
    )
    together = f"{FINAL} REASON FOR EXAM:  Fever.\n\n FINDINGS AND IMPRESSION:  Clear lungs.\n"
    assert report_sections(together) == Sections(impression="Clear lungs.", indication="Fever.")
    assert report_sections(together, combined="findings") == Sections(findings="Clear lungs.", indication="Fever.")


@pytest.mark.parametrize(
    ("heading", "name"),
    [
        ("INDICATION", "indication"),
        ("INDICATIONS", "indication"),
        ("INIDCATION", "indication"),
        ("INDICATION/HISTORY", "indication"),
        ("CLINICAL INFORMATION", "history"),
        ("COMPARISONS", "comparison"),
        ("COMPARSION", "comparison"),
        ("REFERENCE EXAM", "comparison"),
        ("TECHNIQUE", "technique"),
        ("EXAMINATION", None),
        ("TYPE OF EXAM", None),
    ],
)
def test_headings_name_what_was_known_before(heading: str, name: str | None):
    assert context_name(heading) == name


@pytest.mark.parametrize(
    ("heading", "kind"),
    [
        ("FINDINGS", "findings"),
        ("Finding", "findings"),
        ("FINDNGS", "findings"),
        ("REFERENCE FINDINGS", "findings"),
        ("IMPRESSION", "impression"),
        ("IMPRESSOIN", "impression"),
        ("MPRESSION", "impression"),
        ("CONCLUSION", "impression"),
        ("FINDINGS AND IMPRESSION", "combined"),
        ("FINDINGS/IMPRESSION", "combined"),
        ("FINDINGS/ IMPRESSION", "combined"),
        ("CHEST, TWO VIEWS", "title"),
        ("PA AND LATERAL VIEWS OF THE CHEST", "title"),
        ("PORTABLE AP FILM", "title"),
        ("COMPARISON CHEST RADIOGRAPH", "context"),
        ("CLINICAL HISTORY", "context"),
        ("REASON FOR EXAM", "context"),
        ("COMPARRISON", "context"),
        ("IDICATION", "context"),
        ("RECOMMENDATION(S)", "other"),
        ("NOTIFICATION", "other"),
    ],
)
def test_headings_are_told_apart(heading, kind):
    assert section_kind(heading) == kind


@pytest.mark.parametrize(
    ("heading", "expected"),
    [
        (" FINDINGS:  Clear.", "Clear."),
        (" FINDINGS:\n Clear.", "Clear."),
        (" FINDINGS :  Clear.", "Clear."),
        ("FINDINGS: Clear.", "Clear."),
        (" Findings: Clear.", "Clear."),
        (" FINDINGS\n\n Clear.", "Clear."),
        (" FINDNGS:  Clear.", "Clear."),
        (" CHEST, PA AND LATERAL:  Clear.", "Clear."),
        (" There are findings: opacities.", ""),
        (" findings: opacities.", ""),
        (" FINDINGS:Clear.", ""),
    ],
)
def test_heading_variants(heading, expected):
    assert findings(f"{FINAL} INDICATION:  Cough.\n\n{heading}\n\n IMPRESSION:  Normal.\n") == expected


def test_a_title_without_text_is_no_findings_section():
    report = f"{FINAL} CHEST, PA LATERAL:\n\n INDICATION:  Cough.\n\n IMPRESSION:  Normal.\n"
    assert choose_text(report, "findings").reason == "report without a section of findings, impression only"
    assert impression(report) == "Normal."


def test_findings_come_before_a_title_and_the_last_of_two_counts():
    report = (
        " PORTABLE CHEST:  Title text.\n\n FINDINGS:  First.\n\n FINDINGS:  Second.\n\n FINDINGS:\n\n CHEST:  After.\n"
    )
    assert findings(report) == "Second."


def test_a_combined_section_counts_as_impression_unless_asked_for():
    report = f"{FINAL} FINDINGS AND IMPRESSION:  Clear lungs.\n"
    reason = "report without a section of findings, findings and impression in one only"
    assert choose_text(report, "findings").reason == reason
    assert impression(report) == "Clear lungs."
    assert choose_text(report, "both").text == "Clear lungs."
    assert findings(report, combined="findings") == "Clear lungs."
    own = f"{FINAL} FINDINGS:  Own.\n\n FINDINGS AND IMPRESSION:  Both.\n"
    assert findings(own, combined="findings") == "Own."
    asked = choose_text(report, "impression", combined="findings")
    assert (asked.text, asked.reason) == ("", reason.replace("of findings", "of impression"))


def test_a_wet_read_before_the_report_is_left_out():
    wet = f" WET READ: ___ ___ ___ 8:07 PM\n FINDINGS: Wet.\n{RULE}\n"
    assert findings(wet + PLAIN) == findings(PLAIN)
    assert findings(wet) == ""
    assert choose_text(wet, "findings").reason == "report with neither findings nor impression"


@pytest.mark.parametrize(
    "addendum",
    [
        f"                                FINAL ADDENDUM\n ADDENDUM:  Added.\n\n IMPRESSION:  Changed.\n{RULE}\n",
        f" ADDENDUM Please note, FINDINGS: added.\n{RULE}\n",
    ],
)
def test_an_addendum_before_the_report_is_left_out(addendum):
    assert findings(addendum + PLAIN) == findings(PLAIN)
    assert impression(addendum + PLAIN) == "No acute process."


def test_an_addendum_below_final_report_ends_at_the_report_proper():
    report = f"{FINAL} ADDENDUM:  Added text.\n\n FINDINGS:  Added finding.\n\n" + PLAIN.removeprefix(FINAL)
    assert findings(report) == findings(PLAIN)
    assert "Added" not in "".join(section.text for section in split_sections(report))


def test_an_addendum_after_the_report_is_left_out_with_its_own_headings():
    report = (
        PLAIN
        + f"{RULE}\n ADDENDUM:  Discussed by phone.\n COMPARISON:  None.\n FINDINGS:  Later.\n IMPRESSION:  Later.\n"
    )
    assert (findings(report), impression(report)) == (findings(PLAIN), impression(PLAIN))
    assert impression(PLAIN + " ADDENDUM:  IMPRESSION changed.\n IMPRESSION:  Later.\n") == "No acute process."


def test_the_last_paragraph_stands_in_only_where_asked_and_needed():
    report = f"{FINAL} HISTORY:  Pain.\n \n No acute\n process.\n"
    assert findings(report) == ""
    assert findings(report, last_paragraph=True) == "No acute process."
    assert findings(f"{FINAL} HISTORY:  Pain.\n", last_paragraph=True) == ""
    assert findings(f"{FINAL} HISTORY:  Pain.\n \n ___\n", last_paragraph=True) == ""
    only = f"{FINAL} IMPRESSION:  Normal.\n \n Signed.\n"
    assert findings(only, last_paragraph=True) == ""


@pytest.mark.parametrize("report", ["", "\n \n", FINAL, f"{FINAL} FINDINGS:\n\n IMPRESSION: ___\n"])
def test_reports_without_a_word_give_the_reason(report):
    for section in ("findings", "impression", "both"):
        chosen = choose_text(report, section, last_paragraph=True)
        assert (chosen.text, chosen.reason) == ("", "report with neither findings nor impression")


def test_capitals_within_a_line_or_before_a_colon_without_space_start_no_section():
    report = f"{FINAL} FINDINGS:  ET tube 3 cm above the CARINA: unchanged.\n T12:L1 ratio, AP:PA.\n"
    assert findings(report) == "ET tube 3 cm above the CARINA: unchanged. T12:L1 ratio, AP:PA."

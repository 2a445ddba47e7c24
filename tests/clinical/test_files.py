"""Draft reports as DICOM SR and FHIR: what they hold, what the standards' own readers say, and what is refused."""

from __future__ import annotations

import base64
import json
from datetime import datetime, timezone

import pytest

pydicom = pytest.importorskip("pydicom", reason="clinical files need the extra diffrgen[clinical]")
pytest.importorskip("fhir.resources", reason="clinical files need the extra diffrgen[clinical]")
from clinical_files import STUDY, radiograph  # noqa: E402
from pydicom.uid import generate_uid  # noqa: E402

from diffrgen.clinical import (  # noqa: E402
    ClinicalFiles,
    DraftReport,
    DraftSentence,
    ReportOrigin,
    basic_text_sr,
    diagnostic_report,
    read_study,
)
from diffrgen.errors import DataError  # noqa: E402
from diffrgen.reporting.confidence import NotMentioned  # noqa: E402

NOW = datetime(2025, 3, 4, 5, 6, 7, tzinfo=timezone.utc)
ORIGIN = ReportOrigin("0.2.0", "ab" * 32)
SENTENCES = ("the heart is normal in size .", "a <small> left effusion & no pneumothorax .")
DRAFT = DraftReport.plain(SENTENCES)
# What a reader made of four sentences: one changed, one struck, one sure, one doubtful.
EDITED = DraftReport(
    (
        DraftSentence("No <effusion> & no edema.", "there is a left effusion .", 0.9),
        DraftSentence("the heart is normal .", None, 0.831),
        DraftSentence("there is a fracture .", None, 0.31, doubtful=True),
    ),
    (NotMentioned("pneumothorax", 0.87),),
    struck=1,
)
CHANGES = "Edited by an unnamed reader: of 4 generated sentences 1 changed, 1 removed."
LEFT_OUT = "Not mentioned, although the classifier is confident: pneumothorax (87%)"
# PS3.3 table A.35.1-2: what may follow from what in a Basic Text SR.
CONTENT = {"TEXT", "CODE", "DATETIME", "DATE", "TIME", "UIDREF", "PNAME", "IMAGE", "WAVEFORM", "COMPOSITE"}
RELATIONSHIPS = {
    ("CONTAINER", "CONTAINS"): CONTENT | {"CONTAINER"},
    ("CONTAINER", "HAS OBS CONTEXT"): CONTENT - {"IMAGE", "WAVEFORM"},
    ("CONTAINER", "HAS CONCEPT MOD"): {"TEXT", "CODE"},
    ("TEXT", "HAS CONCEPT MOD"): {"TEXT", "CODE"},
    ("TEXT", "HAS PROPERTIES"): CONTENT,
    ("TEXT", "INFERRED FROM"): CONTENT,
}


@pytest.fixture
def strict_dicom(monkeypatch):
    """Have pydicom refuse every value that the standard does not allow, in writing and in reading."""
    monkeypatch.setattr(pydicom.config.settings, "writing_validation_mode", pydicom.config.RAISE)
    monkeypatch.setattr(pydicom.config.settings, "reading_validation_mode", pydicom.config.RAISE)


def check_relationships(item) -> None:
    """Every relationship in the tree below `item` is one that a Basic Text SR may have."""
    for child in item.get("ContentSequence", ()):
        assert child.ValueType in RELATIONSHIPS[item.ValueType, child.RelationshipType]
        check_relationships(child)


def structured_report(tmp_path, sources, report=DRAFT):
    basic_text_sr(sources, report, ORIGIN, now=NOW).save_as(tmp_path / "sr.dcm", enforce_file_format=True)
    return pydicom.dcmread(tmp_path / "sr.dcm")


def concept(item) -> tuple[str, str]:
    (code,) = item.ConceptNameCodeSequence
    return code.CodeValue, code.CodingSchemeDesignator


def test_structured_report_holds_each_sentence_as_a_draft(tmp_path, strict_dicom):
    (source,) = sources = read_study([radiograph(tmp_path / "a.dcm")])
    sr = structured_report(tmp_path, sources)
    assert sr.SOPClassUID == "1.2.840.10008.5.1.4.1.1.88.11"
    assert (sr.Modality, sr.CompletionFlag, sr.VerificationFlag, sr.PreliminaryFlag) == (
        *("SR", "PARTIAL", "UNVERIFIED", "PRELIMINARY"),
    )
    assert (sr.PatientName, sr.PatientID, sr.PatientBirthDate, sr.PatientSex) == ("Müller^Zoë", "P-1", "19500607", "F")
    assert (sr.StudyInstanceUID, sr.StudyDate, sr.AccessionNumber) == (STUDY, "20250102", "A-9")
    assert sr.SpecificCharacterSet == "ISO_IR 192"
    assert "PatientComments" not in sr
    assert len({sr.SOPInstanceUID, sr.SeriesInstanceUID, sr.StudyInstanceUID, source.text("SOPInstanceUID")}) == 4
    assert concept(sr) == ("18748-4", "LN")
    (findings,) = [item for item in sr.ContentSequence if item.ValueType == "CONTAINER"]
    assert concept(findings) == ("121070", "DCM")
    assert [item.TextValue for item in findings.ContentSequence] == list(SENTENCES)
    for item in findings.ContentSequence:
        assert (item.ValueType, item.RelationshipType, concept(item)) == ("TEXT", "CONTAINS", ("121071", "DCM"))
        (image,) = item.ContentSequence
        assert image.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == source.text("SOPInstanceUID")
    (equipment,) = sr.ContributingEquipmentSequence
    assert (equipment.SoftwareVersions, equipment.DeviceSerialNumber) == ("diffrgen 0.2.0", "ab" * 32)
    assert "not for diagnosis" in equipment.ContributionDescription
    assert (sr.ContentDate, sr.ContentTime) == ("20250304", "050607")
    # Type 2 attributes are there though the source has none; type 1 ones of the module are not empty.
    assert {"ReferringPhysicianName", "StudyID", "PerformedProcedureCodeSequence"} <= set(sr.dir())
    (evidence,) = sr.CurrentRequestedProcedureEvidenceSequence
    assert evidence.StudyInstanceUID == STUDY
    check_relationships(sr)
    assert sr.CompletionFlagDescription == "Generated draft. Research use only, not for diagnosis."
    assert "CodingSchemeIdentificationSequence" not in sr


def test_structured_report_of_an_edited_draft_keeps_both_texts_apart(tmp_path, strict_dicom):
    (source,) = sources = read_study([radiograph(tmp_path / "a.dcm")])
    sr = structured_report(tmp_path, sources, EDITED)
    check_relationships(sr)
    assert (sr.CompletionFlag, sr.VerificationFlag) == ("PARTIAL", "UNVERIFIED")
    assert sr.CompletionFlagDescription == "Edited generated draft. Research use only, not for diagnosis."
    assert "VerifyingObserverSequence" not in sr
    generated, edited = sr.ContributingEquipmentSequence
    assert [item.PurposeOfReferenceCodeSequence[0].CodeValue for item in (generated, edited)] == ["109102", "109103"]
    assert edited.ContributionDescription == CHANGES
    (scheme,) = sr.CodingSchemeIdentificationSequence
    assert scheme.CodingSchemeDesignator == "99DIFFRGEN"
    (findings,) = [item for item in sr.ContentSequence if item.ValueType == "CONTAINER"]
    *sentences, changes, left_out = findings.ContentSequence
    assert [item.TextValue for item in sentences] == [each.text for each in EDITED.sentences]
    assert [(concept(item), item.TextValue) for item in (changes, left_out)] == [
        (("121106", "DCM"), CHANGES),
        (("121106", "DCM"), LEFT_OUT),
    ]
    said = [
        [(child.RelationshipType, concept(child), child.TextValue) for child in item.ContentSequence if child.ValueType == "TEXT"]
        for item in sentences
    ]
    certainty = "HAS PROPERTIES", ("111012", "DCM")
    assert said == [
        [("INFERRED FROM", ("generated-text", "99DIFFRGEN"), "there is a left effusion .")],
        [(*certainty, "83% likely to be true")],
        [(*certainty, "doubtful: 31% likely to be true")],
    ]
    for item in sentences:
        (image,) = [child for child in item.ContentSequence if child.ValueType == "IMAGE"]
        assert image.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == source.text("SOPInstanceUID")


def test_fhir_report_of_an_edited_draft_keeps_both_texts_apart(tmp_path):
    report = diagnostic_report(read_study([radiograph(tmp_path / "a.dcm")]), EDITED, ORIGIN, now=NOW)
    assert report["status"] == "preliminary"
    doubtful = "there is a fracture . [doubtful: 31% likely to be true]"
    assert report["conclusion"] == f"No <effusion> & no edema. the heart is normal . {doubtful}"
    notes = [
        CHANGES,
        "Sentence 1, as generated: there is a left effusion .",
        "Sentence 2: 83% likely to be true",
        "Sentence 3: doubtful: 31% likely to be true",
        LEFT_OUT,
    ]
    url = "http://hl7.org/fhir/5.0/StructureDefinition/extension-DiagnosticReport.note"
    assert report["extension"] == [{"url": url, "valueAnnotation": {"text": note}} for note in notes]
    narrative = report["text"]["div"]
    paragraphs = [
        "No &lt;effusion&gt; &amp; no edema.<br/><i>As generated: there is a left effusion .</i>",
        "the heart is normal .<br/><i>83% likely to be true</i>",
        "there is a fracture .<br/><i>doubtful: 31% likely to be true</i>",
        f"<i>{CHANGES}</i>",
        f"<i>{LEFT_OUT}</i>",
    ]
    assert narrative.endswith("".join(f"<p>{each}</p>" for each in paragraphs) + "</div>")
    notice = "Edited generated draft. Research use only, not for diagnosis."
    assert notice in narrative
    text = base64.b64decode(report["presentedForm"][0]["data"]).decode()
    assert text == "\n\n".join([notice, report["conclusion"], "\n".join(notes)]) + "\n"
    assert report["presentedForm"][0]["title"].startswith(notice)


def test_a_report_whose_sentences_are_all_struck_says_so(tmp_path, strict_dicom):
    sources, struck = read_study([radiograph(tmp_path / "a.dcm")]), DraftReport((), struck=2)
    sr = structured_report(tmp_path, sources, struck)
    assert [item.TextValue for item in sr.ContentSequence[-1].ContentSequence] == [struck.changes]
    report = diagnostic_report(sources, struck, ORIGIN, now=NOW)
    assert "conclusion" not in report
    assert "of 2 generated sentences 0 changed, 2 removed." in report["text"]["div"]


def test_two_views_are_evidence_by_series(tmp_path, strict_dicom):
    series = generate_uid()
    files = [radiograph(tmp_path / f"{view}.dcm", ViewPosition=view, SeriesInstanceUID=series) for view in ("AP", "LL")]
    sources = read_study(files)
    sr = structured_report(tmp_path, sources)
    ((entry,),) = [e.ReferencedSeriesSequence for e in sr.CurrentRequestedProcedureEvidenceSequence]
    assert [r.ReferencedSOPInstanceUID for r in entry.ReferencedSOPSequence] == [s.text("SOPInstanceUID") for s in sources]
    assert diagnostic_report(sources, DRAFT, ORIGIN, now=NOW)["code"]["coding"][0]["code"] == "36687-2"


@pytest.mark.parametrize(
    ("view", "code"), [("PA", "24648-8"), ("AP", "36572-6"), ("ll", "39051-8"), (None, "36554-4"), ("LLO", "36554-4")]
)
def test_fhir_names_the_view(tmp_path, view, code):
    tags = {"ViewPosition": view if view is None else view.upper()}
    report = diagnostic_report(read_study([radiograph(tmp_path / "a.dcm", **tags)]), DRAFT, ORIGIN, now=NOW)
    assert report["code"]["coding"][0] == {"system": "http://loinc.org", **report["code"]["coding"][0], "code": code}


def test_fhir_report_is_preliminary_and_names_patient_study_and_run(tmp_path):
    report = diagnostic_report(read_study([radiograph(tmp_path / "a.dcm")]), DRAFT, ORIGIN, now=NOW)
    assert report["status"] == "preliminary"
    assert report["category"][0]["coding"][0]["code"] == "RAD"
    assert report["subject"]["identifier"] == {"value": "P-1", "assigner": {"display": "HOSP"}}
    assert report["imagingStudy"][0]["identifier"]["value"] == f"urn:oid:{STUDY}"
    assert report["identifier"][0]["value"] == "A-9"
    assert (report["effectiveDateTime"], report["issued"]) == ("2025-01-02", "2025-03-04T05:06:07+00:00")
    assert report["conclusion"] == " ".join(SENTENCES)
    assert report["meta"]["source"] == f"urn:sha256:{'ab' * 32}"
    text = base64.b64decode(report["presentedForm"][0]["data"]).decode()
    assert text == f"Generated draft. Research use only, not for diagnosis.\n\n{' '.join(SENTENCES)}\n"
    assert "&lt;small&gt;" in report["text"]["div"]
    assert "extension" not in report
    assert "Müller" not in json.dumps(report, ensure_ascii=False)


def test_files_are_new_and_several_reports_are_a_bundle(tmp_path):
    sources = [read_study([radiograph(tmp_path / f"{name}.dcm")]) for name in "ab"]
    files = ClinicalFiles(tmp_path / "sr", tmp_path / "reports.json", sources, ORIGIN)
    for position in range(2):
        files.write(position, DRAFT)
    files.finish()
    written = [pydicom.dcmread(path) for path in (tmp_path / "sr").iterdir()]
    assert len({document.SOPInstanceUID for document in written}) == 2
    bundle = json.loads((tmp_path / "reports.json").read_text())
    assert [entry["resource"]["resourceType"] for entry in bundle["entry"]] == ["DiagnosticReport"] * 2
    for wrong in ((tmp_path / "sr", None), (None, tmp_path / "reports.json")):
        with pytest.raises(DataError, match="needed a new"):
            ClinicalFiles(*wrong, sources, ORIGIN)


@pytest.mark.parametrize(
    ("tags", "named"),
    [
        ({"Modality": "CT"}, "got another modality"),
        ({"Modality": None}, "got none"),
        ({"NumberOfFrames": 2}, "multi-frame or enhanced"),
        ({"SharedFunctionalGroupsSequence": [pydicom.Dataset()]}, "multi-frame or enhanced"),
        ({"StudyInstanceUID": None}, "StudyInstanceUID holds no UID"),
        ({"SeriesInstanceUID": ""}, "SeriesInstanceUID holds no UID"),
    ],
)
def test_other_objects_are_refused_by_name(tmp_path, tags, named):
    with pytest.raises(DataError, match=named) as refused:
        read_study([radiograph(tmp_path / "a.dcm", **tags)])
    assert "a.dcm" in str(refused.value)
    assert "P-1" not in str(refused.value)


def test_values_that_dicom_does_not_allow_are_named_and_not_quoted(tmp_path):
    file = radiograph(tmp_path / "a.dcm")
    content = file.read_bytes()
    file.write_bytes(content.replace(b"19500607", b"SECRET^A"))
    with pytest.raises(DataError, match="its tag PatientBirthDate holds a value") as refused:
        read_study([file])
    assert "SECRET" not in str(refused.value)


def test_two_patients_or_two_studies_are_refused(tmp_path):
    first = radiograph(tmp_path / "a.dcm")
    with pytest.raises(DataError, match="expected one patient in a study, got two"):
        read_study([first, radiograph(tmp_path / "b.dcm", PatientID="P-2")])
    with pytest.raises(DataError, match="two studies"):
        read_study([first, radiograph(tmp_path / "c.dcm", StudyInstanceUID=generate_uid())])


def test_a_png_has_no_patient(tmp_path):
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(200))
    with pytest.raises(DataError, match="got a file of another format"):
        read_study([tmp_path / "a.png"])


def test_generate_exports_what_it_prints_and_refuses_before_it_loads(tiny_run, tmp_path, capsys):
    from diffrgen import generate

    file, run = radiograph(tmp_path / "a.dcm", Rows=4, Columns=4), str(tiny_run)
    exported = ["--dicom-sr", str(tmp_path / "sr"), "--fhir", str(tmp_path / "report.json")]
    assert generate.main([run, str(file), "--json", *exported]) == 0
    sentences = [sentence["text"] for sentence in json.loads(capsys.readouterr().out)["sentences"]]
    (document,) = (pydicom.dcmread(path) for path in (tmp_path / "sr").iterdir())
    findings = document.ContentSequence[-1]
    assert [item.TextValue for item in findings.get("ContentSequence", [])] == sentences
    assert json.loads((tmp_path / "report.json").read_text()).get("conclusion", "") == " ".join(sentences)
    with pytest.raises(DataError, match="another format"):
        generate.main([run, str(tiny_run.parent / "studies" / "0.png"), "--fhir", str(tmp_path / "other.json")])
    assert not (tmp_path / "other.json").exists()


def test_an_impression_has_a_section_of_its_own_and_is_the_conclusion(tmp_path, strict_dicom):
    sources = read_study([radiograph(tmp_path / "a.dcm")])
    files = ClinicalFiles(tmp_path / "sr", tmp_path / "report.json", [sources], ORIGIN)
    files.write(0, DraftReport.plain(SENTENCES[:1], SENTENCES[1:]))
    files.finish()
    (sr,) = map(pydicom.dcmread, (tmp_path / "sr").iterdir())
    sections = [item for item in sr.ContentSequence if item.ValueType == "CONTAINER"]
    assert [concept(section) for section in sections] == [("121070", "DCM"), ("121072", "DCM")]
    assert [[item.TextValue for item in section.ContentSequence] for section in sections] == [
        list(SENTENCES[:1]),
        list(SENTENCES[1:]),
    ]
    assert concept(sections[1].ContentSequence[0]) == ("121073", "DCM")
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert report["conclusion"] == " ".join(SENTENCES[1:])
    assert f"<p><b>Findings</b></p><p>{SENTENCES[0]}</p><p><b>Impression</b></p>" in report["text"]["div"]
    text = base64.b64decode(report["presentedForm"][0]["data"]).decode()
    told = f"Findings: {SENTENCES[0]}\n\nImpression: {' '.join(SENTENCES[1:])}\n"
    assert text == f"Generated draft. Research use only, not for diagnosis.\n\n{told}"

"""IU X-Ray from Open-i's XML, Kaggle's tables and R2Gen's annotation: small archives written by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from iu_archive import STUDIES, write_kaggle, write_openi, write_r2gen, xml_of

from diffrgen.errors import DataError
from diffrgen.preparation import IuXrayOptions, prepare_iu_xray
from diffrgen.preparation.iu_splits import hash_split
from diffrgen.preparation.openi import parse_report
from diffrgen.prepare import main, parse_options
from diffrgen.records import SPLITS, Sections, read_annotation, view_kind

HEART = "Heart size is normal & lungs are clear."


def prepare(archive: Path, out: Path, **options: object) -> dict:
    prepare_iu_xray(IuXrayOptions(archive, out, **options))
    return json.loads((out / "annotation.json").read_text(encoding="utf-8"))


def summary_of(out: Path) -> dict:
    return json.loads((out / "summary.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("packed", [True, False])
def test_openi_reports_become_records(tmp_path: Path, packed: bool) -> None:
    archive = write_openi(tmp_path / "archive", packed=packed)
    content = prepare(archive, tmp_path / "out", split="whole", check_images=True)
    assert content == {
        "train": [],
        "val": [],
        "test": [
            {
                "id": "CXR1",
                "patient_id": "CXR1",
                "report": HEART,
                "image_path": ["CXR1_1_IM-0001-3001.png", "CXR1_1_IM-0001-4001.png"],
                "findings": HEART,
                "impression": "Normal.",
                "indication": "Cough",
            },
            {
                "id": "CXR3",
                "patient_id": "CXR3",
                "report": "Effusion.",
                "image_path": ["CXR3_IM-1384-1001.png"],
                "findings": "Effusion.",
                "indication": "Cough",
            },
            {
                "id": "CXR4",
                "patient_id": "CXR4",
                "report": "Clear.",
                "image_path": [f"CXR4_IM-2050-{n}001.png" for n in (1, 2, 3)],
                "findings": "Clear.",
                "impression": "Normal.",
                "indication": "Cough",
            },
        ],
    }
    summary = summary_of(tmp_path / "out")
    assert summary["read"] == {"studies": 5, "images": 8}
    assert summary["dropped"]["studies"] == {
        "report without findings": {"count": 1, "examples": ["CXR2"]},
        "study with fewer than 1 image(s) of the wanted views": {"count": 1, "examples": ["CXR5"]},
    }
    assert summary["notes"][-1] == "complete data set: every study is in test"
    splits = read_annotation(tmp_path / "out" / "annotation.json", images=archive / summary["files"]["images"])
    assert [study.id for study in splits.test] == ["CXR1", "CXR3", "CXR4"]
    assert splits.test[1].sections == Sections(findings="Effusion.", indication="Cough")


def test_r2gens_annotation_beside_the_xml_gives_split_and_ids(tmp_path: Path) -> None:
    archive = write_r2gen(write_openi(tmp_path / "archive"))
    content = prepare(archive, tmp_path / "out")
    assert {split: [(r["id"], r["report"]) for r in content[split]] for split in content} == {
        "train": [("CXR4_IM-2050", "Clear.")],
        "val": [],
        "test": [("CXR1_1_IM-0001", HEART)],
    }
    dropped = summary_of(tmp_path / "out")["dropped"]["studies"]
    assert dropped["study of the split list without a report"] == {"count": 1, "examples": ["CXR9_IM-2407"]}
    assert dropped["study with fewer than 2 image(s) of the wanted views"]["examples"] == ["CXR3", "CXR5"]


def test_kaggles_projections_order_the_images_and_tell_views(tmp_path: Path) -> None:
    archive = write_kaggle(tmp_path / "kaggle")
    test = prepare(archive, tmp_path / "out", split="whole")["test"]
    assert [(r["id"], r["image_path"], r["view"]) for r in test] == [
        ("CXR1", ["1_IM-0001-4001.dcm.png", "1_IM-0001-3001.dcm.png"], "Frontal"),
        ("CXR3", ["3_IM-1384-1001.dcm.png"], "Frontal"),
        ("CXR4", ["4_IM-2050-2001.dcm.png", "4_IM-2050-1001.dcm.png"], "Frontal"),
    ]
    assert test[0]["report"] == HEART
    assert [(r["indication"], r["comparison"], r.get("impression")) for r in test] == [
        *(("Cough", "None.", "Normal."), ("Cough", "None.", None), ("Cough", "None.", "Normal.")),
    ]
    assert [r.get("views") for r in test] == [["Frontal", "Lateral"], None, ["Frontal", "Lateral"]]
    # Beside the XML they do the same; the image that they do not name comes between frontal and lateral.
    both = prepare(write_kaggle(write_openi(tmp_path / "both")), tmp_path / "xml", split="whole")["test"]
    assert both[0]["image_path"] == ["CXR1_1_IM-0001-4001.png", "CXR1_1_IM-0001-3001.png"]
    assert both[2]["image_path"] == [f"CXR4_IM-2050-{n}001.png" for n in (2, 3, 1)]
    assert both[2]["views"] == ["Frontal", "", "Lateral"]


def test_options_choose_section_entries_views_and_images(tmp_path: Path) -> None:
    archive = write_kaggle(tmp_path / "kaggle")
    both = prepare(archive, tmp_path / "both", split="whole", section="both")["test"]
    assert [r["report"] for r in both] == [f"{HEART} Normal.", "No disease.", "Effusion.", "Clear. Normal."]
    images = prepare(archive, tmp_path / "image", split="whole", entries="image", section="impression")["test"]
    assert [(r["id"], r["image_path"], r["view"]) for r in images[:2]] == [
        ("CXR1-0", ["1_IM-0001-4001.dcm.png"], "Frontal"),
        ("CXR1-1", ["1_IM-0001-3001.dcm.png"], "Lateral"),
    ]
    frontal = prepare(archive, tmp_path / "frontal", split="whole", views=("frontal",), min_images=1)["test"]
    assert [len(r["image_path"]) for r in frontal] == [1, 1, 1]
    two = prepare(archive, tmp_path / "two", split="whole", min_images=2)["test"]
    assert [r["id"] for r in two] == ["CXR1", "CXR4"]


def test_a_study_keeps_its_first_four_images(tmp_path: Path) -> None:
    archive = write_kaggle(tmp_path / "kaggle")
    more = "".join(f"3,3_IM-1384-{n}001.dcm.png,{'Lateral' if n < 6 else 'Frontal'}\n" for n in range(2, 7))
    with (archive / "indiana_projections.csv").open("a", encoding="utf-8") as table:
        table.write(more)
    record = prepare(archive, tmp_path / "out", split="whole")["test"][1]
    assert record["views"] == ["Frontal", "Frontal", "Lateral", "Lateral"]
    assert record["image_path"] == [f"3_IM-1384-{n}001.dcm.png" for n in (1, 6, 2, 3)]
    assert summary_of(tmp_path / "out")["dropped"]["images"] == {
        "image beyond the first 4 of a study": {"count": 2, "examples": [f"3_IM-1384-{n}001.dcm.png" for n in (4, 5)]}
    }
    assert len(prepare(archive, tmp_path / "each", split="whole", entries="image")["test"]) == 10
    assert [view_kind(name) for name in record["views"]] == ["frontal", "frontal", "lateral", "lateral"]


def test_a_split_list_is_a_table_too(tmp_path: Path) -> None:
    archive = write_kaggle(tmp_path / "kaggle")
    (archive / "split.csv").write_text("id,split\n1,validate\nCXR4,train\n", encoding="utf-8")
    content = prepare(archive, tmp_path / "out", split="r2gen")
    assert {split: [r["patient_id"] for r in content[split]] for split in content} == {
        "train": ["CXR4"],
        "val": ["CXR1"],
        "test": [],
    }
    (archive / "split.csv").write_text("id,split\n1,dev\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"split\.csv: expected a split out of train, val, validate, test, got 'dev'"):
        prepare(archive, tmp_path / "again")


def test_without_a_list_the_split_follows_from_the_patient_alone(tmp_path: Path) -> None:
    names = [str(number) for number in range(1, 2956)]
    split = hash_split(names)
    assert [sum(value == name for value in split.values()) for name in SPLITS] == [2069, 296, 590]
    assert hash_split(reversed(names)) == split
    # The SHA-256 of "4", "3", "1", "2", "5" begin with 4b, 4e, 6b, d4, ef.
    assert hash_split("1235") == {"3": "train", "1": "train", "2": "train", "5": "test"}
    assert hash_split("12345") == {"4": "train", "3": "train", "1": "train", "2": "train", "5": "val"}
    archive = write_kaggle(tmp_path / "kaggle")
    prepare(archive, tmp_path / "out")
    assert "NOT R2Gen's" in summary_of(tmp_path / "out")["notes"][-1]
    with pytest.raises(DataError, match=r"needed annotation\.json or split\.csv \(R2Gen's split"):
        prepare(archive, tmp_path / "r2gen", split="r2gen")


def test_r2gens_records_are_passed_on_as_they_are(tmp_path: Path) -> None:
    archive = write_r2gen(tmp_path / "iu_xray")
    original = json.loads((archive / "annotation.json").read_text(encoding="utf-8"))
    assert prepare(archive, tmp_path / "out") == original
    whole = prepare(archive, tmp_path / "whole", split="whole")
    assert (whole["train"], whole["val"]) == ([], [])
    assert [(r["id"], r["split"]) for r in whole["test"]] == [
        ("CXR4_IM-2050", "test"),
        ("CXR9_IM-2407", "test"),
        ("CXR1_1_IM-0001", "test"),
    ]
    folder = archive / "images" / "CXR4_IM-2050"
    folder.mkdir(parents=True)
    for name in ("0.png", "1.png"):
        (folder / name).touch()
    checked = prepare(archive, tmp_path / "checked", check_images=True)
    assert [len(checked[split]) for split in SPLITS] == [1, 0, 0]
    with pytest.raises(DataError, match=r"annotation\.json: records are passed on as they are"):
        prepare(archive, tmp_path / "no", section="impression")


@pytest.mark.parametrize("write", [write_openi, write_kaggle])
def test_sections_join_the_records_that_are_passed_on(tmp_path: Path, write: Callable[[Path], Path]) -> None:
    archive = write_r2gen(write(tmp_path / "iu_xray"))
    original = json.loads((archive / "annotation.json").read_text(encoding="utf-8"))
    (archive / "indiana_projections.csv").unlink(missing_ok=True)
    joined = prepare(archive, tmp_path / "out", source="annotation")
    for split in SPLITS:
        assert [{key: r[key] for key in ("id", "report", "image_path", "split")} for r in joined[split]] == original[split]
    assert [joined[split][0].get("findings") for split in SPLITS] == ["Clear.", None, HEART]
    assert [joined[split][0].get("indication") for split in SPLITS] == ["Cough", None, "Cough"]
    assert "joined by study number: 2 records have an indication" in summary_of(tmp_path / "out")["notes"][0]


def test_the_archives_own_annotation_is_never_written_over(tmp_path: Path) -> None:
    archive = write_r2gen(tmp_path / "iu_xray")
    with pytest.raises(DataError, match="needed another folder than the archive's"):
        prepare(archive, archive, overwrite=True)
    inside = archive / "prepared"
    assert prepare(archive, inside) == prepare(archive, inside)
    with pytest.raises(DataError, match=r"needed no file or one of the same content.*--overwrite"):
        prepare(archive, inside, split="whole")


BOMB = '<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;">]><eCitation>&b;</eCitation>'
OUTSIDE = '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/hostname">]><eCitation><uId id="CXR1"/>&a;</eCitation>'


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (BOMB.encode(), "1.xml: expected a report without a document type, got <!DOCTYPE x>"),
        (BOMB.replace("1.0", "1.0").encode("utf-16"), "1.xml: expected a report without a document type"),
        (OUTSIDE.encode(), "1.xml: expected a report without a document type"),
        (b"<eCitation><uId id='CXR1'/>", r"1.xml: expected an XML report, got: no element found"),
        (b"", r"1.xml: expected an XML report"),
        (b"<note/>", "1.xml: expected Open-i's <eCitation> with .*, got <note>"),
        (b"<eCitation/>", "1.xml: expected Open-i's <eCitation> with .*, got <eCitation>"),
    ],
)
def test_what_is_no_report_is_refused(content: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        parse_report(content, "1.xml", {})


def test_damaged_archives_are_refused(tmp_path: Path) -> None:
    archive = write_openi(tmp_path / "archive")
    tarball = archive / "NLMCXR_reports.tgz"
    whole = tarball.read_bytes()
    tarball.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"NLMCXR_reports\.tgz: expected a tar file of reports, cannot read on"):
        prepare(archive, tmp_path / "out")
    tarball.write_bytes(b"no tar")
    with pytest.raises(DataError, match=r"NLMCXR_reports\.tgz: expected a tar file of reports"):
        prepare(archive, tmp_path / "out")
    unpacked = write_openi(tmp_path / "unpacked", packed=False)
    (unpacked / "ecgen-radiology" / "6.xml").write_text(xml_of(*STUDIES[0]), encoding="utf-8")
    with pytest.raises(DataError, match=r"6\.xml: expected one report a study, got a second one of study 1"):
        prepare(unpacked, tmp_path / "out")
    (unpacked / "ecgen-radiology" / "6.xml").write_bytes(b" " * 4_000_001)
    with pytest.raises(DataError, match=r"6\.xml: expected a report of at most 4,000,000 bytes, got 4,000,001"):
        prepare(unpacked, tmp_path / "out")


def test_an_image_name_that_leaves_the_folder_is_refused(tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    archive.mkdir()
    (archive / "1.xml").write_text(xml_of(1, "Clear.", "", ("../../secret",)), encoding="utf-8")
    with pytest.raises(DataError, match=r"record 'CXR1' .*'\.\./\.\./secret\.png' leaves the images folder"):
        prepare(archive, tmp_path / "out", split="whole")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("indiana_projections.csv", "Lateral", "Oblique", "uid 1, .*: expected Frontal or Lateral, got 'Oblique'"),
        (
            "indiana_projections.csv",
            "4,4_IM",
            "7,4_IM",
            r"images of the studies in indiana_reports\.csv only, got.*'7'",
        ),
        ("indiana_reports.csv", "3,normal", "2,normal", "expected a number as uid, each once, got '2'"),
        ("indiana_reports.csv", ",findings", ",text", r"needed the column\(s\) findings, got: uid, MeSH"),
    ],
)
def test_damaged_kaggle_tables_are_refused(tmp_path: Path, name: str, old: str, new: str, message: str) -> None:
    archive = write_kaggle(tmp_path / "kaggle")
    path = archive / name
    path.write_text(path.read_text(encoding="utf-8").replace(old, new, 1), encoding="utf-8")
    with pytest.raises(DataError, match=message):
        prepare(archive, tmp_path / "out")


def test_an_archive_without_any_form_says_what_was_needed(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        DataError, match=r"needed NLMCXR_reports\.tgz or \*\.xml, indiana_reports\.csv, annotation\.json"
    ):
        prepare(tmp_path / "empty", tmp_path / "out")
    (tmp_path / "empty" / "notes.txt").touch()
    with pytest.raises(DataError, match=r"needed indiana_reports\.csv for --source kaggle, got: notes\.txt"):
        prepare(tmp_path / "empty", tmp_path / "out", source="kaggle")


def test_the_command_says_which_split_it_is(tmp_path: Path, capsys) -> None:
    archive = write_r2gen(write_openi(tmp_path / "archive"))
    assert main(["iu-xray", str(archive), str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert "note: split: that of annotation.json in the archive" in printed
    paths = f"--data {tmp_path / 'out' / 'annotation.json'} --images {archive / 'NLMCXR_png'}"
    assert printed[-1] == f"to train: python -m diffrgen.train {paths}"
    assert main(["iu-xray", str(archive), str(tmp_path / "whole"), "--split", "whole"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("to evaluate: python -m diffrgen.evaluate RUN --data ")
    # The annotation is passed on beside images of other names than it lists.
    assert main(["iu-xray", str(archive), str(tmp_path / "joined"), "--source", "annotation"]) == 0
    note, command = capsys.readouterr().out.splitlines()[-2:]
    assert note == "FOLDER in the next line: the folder that holds the images"
    assert command == f"to train: python -m diffrgen.train --data {tmp_path / 'joined' / 'annotation.json'} --images FOLDER"
    image = archive / "images" / json.loads((archive / "annotation.json").read_text())["train"][0]["image_path"][0]
    image.parent.mkdir(parents=True)
    image.touch()
    assert main(["iu-xray", str(archive), str(tmp_path / "beside"), "--source", "annotation"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].endswith(f" --images {archive / 'images'}")
    assert parse_options(["iu-xray", "A", "B"]) == IuXrayOptions(Path("A"), Path("B"))

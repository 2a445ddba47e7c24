"""MIMIC-CXR from PhysioNet's layout to an annotation file that reads back: values, options, refusals."""

from __future__ import annotations

import gzip
import json
import zipfile
from datetime import date
from pathlib import Path

import pytest
from mimic_archive import FINDINGS_COLUMNS, REPORTS, ROWS, write_archive, write_table

from diffrgen.errors import DataError
from diffrgen.labels import FINDINGS
from diffrgen.preparation import MimicCxrOptions, prepare_mimic_cxr
from diffrgen.prepare import main, parse_options
from diffrgen.records import read_annotation

JPG = Path("physionet.org/files/mimic-cxr-jpg/2.0.0")
TXT = Path("physionet.org/files/mimic-cxr/2.0.0")
# 2180-05-06 08:45:00, 2180-06-26 16:55:00 and 23:59:59 as days.
MAY, JUNE = date(2180, 5, 6).toordinal(), date(2180, 6, 26).toordinal()
DAYS = (MAY + 0.364583, JUNE + 0.704861, JUNE + 0.999988)
HEART = "The heart is mildly enlarged. There is no pneumothorax."
EFFUSION = "Right pleural effusion, new since ___."
LINES = "Lines in standard position."


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return write_archive(tmp_path / "archive")


def prepare(archive: Path, out: Path, **options: object) -> dict:
    """Prepare and return the content of annotation.json."""
    prepare_mimic_cxr(MimicCxrOptions(archive, out, **options))
    return json.loads((out / "annotation.json").read_text(encoding="utf-8"))


def summary_of(out: Path) -> dict:
    return json.loads((out / "summary.json").read_text(encoding="utf-8"))


def test_an_entry_an_image_in_the_official_split(archive: Path, tmp_path: Path) -> None:
    content = prepare(archive, tmp_path / "out")

    assert content["train"][0] == {
        "id": "aaaa-ap",
        "study_id": "50000001",
        "patient_id": "10000032",
        "report": HEART,
        "image_path": ["p10/p10000032/s50000001/aaaa-ap.jpg"],
        # CheXbert's order: cardiomegaly is second (positive), pneumothorax ninth (negative).
        "labels": [0, 1, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0],
        "study_date": "2180-05-06",
        "days": DAYS[0],
        "view": "AP",
        "findings": HEART,
        "impression": "Mild cardiomegaly.",
        "indication": "___ year old woman with cough // eval for pneumonia",
    }
    assert [r.get("history") for r in content["train"]] == [None, None, *["___-year-old with dyspnea."] * 2, None]
    rows = [(r["id"], r["report"], r.get("view"), r["days"], r.get("prior_id")) for r in content["train"]]
    assert rows == [
        ("aaaa-ap", HEART, "AP", DAYS[0], None),
        ("aaaa-lat", HEART, "LL", DAYS[0], None),
        ("bbbb-pa", EFFUSION, "PA", DAYS[1], "aaaa-ap"),
        ("bbbb-lat", EFFUSION, "LATERAL", DAYS[1], "aaaa-ap"),
        ("cccc", LINES, None, DAYS[2], "bbbb-pa"),
    ]
    assert [r.get("labels") for r in content["train"][2:]] == [[0, 0, 0, 0, 3, 0, 0, 0, 0, 1, 0, 2, 0, 0]] * 2 + [None]
    assert content["val"] == []
    assert [(r["id"], r["labels"]) for r in content["test"]] == [("eeee", [0] * 13 + [1])]


def test_the_annotation_reads_back_with_images_and_priors(archive: Path, tmp_path: Path) -> None:
    prepare(archive, tmp_path / "out", entries="study")

    splits = read_annotation(tmp_path / "out" / "annotation.json", images=archive / JPG / "files")

    assert [(s.id, len(s.images), s.days, s.view, s.prior_id) for s in splits.train] == [
        ("s50000001", 2, DAYS[0], "AP", None),
        ("s50000002", 2, DAYS[1], "PA", "s50000001"),
        ("s50000003", 1, DAYS[2], None, "s50000002"),
    ]
    assert [s.views for s in splits.train] == [("frontal", "lateral"), ("frontal", "lateral"), ("unknown",)]
    assert splits.train[1].images[0] == archive / JPG / "files/p10/p10000032/s50000002/bbbb-pa.jpg"
    assert splits.train[1].labels == (0, 0, 0, 0, 3, 0, 0, 0, 0, 1, 0, 2, 0, 0)
    assert [(s.id, s.report, s.patient_id) for s in splits.test] == [("s52000001", "Lungs are clear.", "12000012")]


def test_the_summary_counts_what_was_kept_and_why_the_rest_was_not(archive: Path, tmp_path: Path) -> None:
    prepare(archive, tmp_path / "out")
    summary = summary_of(tmp_path / "out")

    assert summary["read"] == {"images": 9, "studies": 7}
    assert summary["kept"] == {
        "train": {"entries": 5, "studies": 3, "images": 5, "patients": 1},
        "val": {"entries": 0, "studies": 0, "images": 0, "patients": 0},
        "test": {"entries": 1, "studies": 1, "images": 1, "patients": 1},
    }
    assert summary["dropped"] == {
        "studies": {
            "report without a section of findings, findings and impression in one only": {
                "count": 1,
                "examples": ["s51000001"],
            },
            "report with neither findings nor impression": {"count": 1, "examples": ["s52000002"]},
            "study without a report file": {"count": 1, "examples": ["s52000003"]},
        },
        "images": {},
    }
    # Four of the five entries in train have labels: two are of s50000001, two of s50000002.
    frequencies = {split: {n: f for n, f in known.items() if f} for split, known in summary["base_frequencies"].items()}
    assert frequencies == {"train": {"cardiomegaly": 0.5, "pleural effusion": 0.5}, "test": {"no finding": 1.0}}
    assert list(summary["base_frequencies"]["train"]) == list(FINDINGS)
    assert summary["notes"] == ["1 studies are not in the label table and have no labels"]
    assert summary["files"] == {
        "split": f"{JPG.as_posix()}/mimic-cxr-2.0.0-split.csv.gz",
        "metadata": f"{JPG.as_posix()}/mimic-cxr-2.0.0-metadata.csv.gz",
        "labels": f"{JPG.as_posix()}/mimic-cxr-2.0.0-chexpert.csv.gz",
        "reports": f"{TXT.as_posix()}/mimic-cxr-reports.zip",
        "images": f"{JPG.as_posix()}/files",
    }


def test_plain_tables_and_unpacked_reports_give_the_same(archive: Path, tmp_path: Path) -> None:
    plain = write_archive(tmp_path / "plain", end=".csv", zipped=False)
    assert prepare(plain, tmp_path / "a") == prepare(archive, tmp_path / "b")
    assert summary_of(tmp_path / "a")["files"]["reports"] == f"{TXT.as_posix()}/files"


def test_reports_and_images_may_share_one_folder(tmp_path: Path) -> None:
    archive = write_archive(tmp_path / "archive", zipped=False)
    for path in (archive / TXT / "files").rglob("*.txt"):
        path.rename(archive / JPG / "files" / path.relative_to(archive / TXT / "files"))
    content = prepare(archive / JPG, tmp_path / "out", check_images=True)
    assert [len(content[split]) for split in ("train", "val", "test")] == [5, 0, 1]


def test_section_options_choose_the_text(archive: Path, tmp_path: Path) -> None:
    impression = prepare(archive, tmp_path / "i", section="impression", entries="study")
    assert {split: [r["report"] for r in rows] for split, rows in impression.items()} == {
        "train": ["Mild cardiomegaly.", "New effusion."],
        "val": ["Clear lungs."],
        "test": [],
    }
    both = prepare(archive, tmp_path / "b", section="both", entries="study", last_paragraph=True)
    assert [r["report"] for r in both["train"]] == [f"{HEART} Mild cardiomegaly.", f"{EFFUSION} New effusion.", LINES]
    assert [r["report"] for r in both["test"]] == ["Lungs are clear.", "No acute process."]
    assert prepare(archive, tmp_path / "c", combined="findings")["val"][0]["report"] == "Clear lungs."


def test_views_are_kept_by_name_or_group(archive: Path, tmp_path: Path) -> None:
    def ids(name: str, *views: str) -> list[str]:
        return [record["id"] for record in prepare(archive, tmp_path / name, views=views)["train"]]

    assert ids("frontal", "frontal") == ["aaaa-ap", "bbbb-pa"]
    assert ids("lateral", "lateral") == ["aaaa-lat", "bbbb-lat"]
    assert ids("named", "ll", "unknown") == ["aaaa-lat", "cccc"]
    dropped = summary_of(tmp_path / "frontal")["dropped"]["studies"]
    assert dropped["study without an image of the requested views"] == {"count": 1, "examples": ["s50000003"]}


def test_base_frequencies_count_entries(archive: Path, tmp_path: Path) -> None:
    # One image of s50000001 (cardiomegaly) and two of s50000002 (effusion).
    assert len(prepare(archive, tmp_path / "out", views=("PA", "LATERAL", "LL"))["train"]) == 3
    shares = summary_of(tmp_path / "out")["base_frequencies"]["train"]
    assert (shares["cardiomegaly"], shares["pleural effusion"]) == pytest.approx((1 / 3, 2 / 3))


def test_a_dropped_study_is_nobodys_prior(archive: Path, tmp_path: Path) -> None:
    train = prepare(archive, tmp_path / "out", views=("PA", "unknown"))["train"]
    assert [(record["id"], record.get("prior_id")) for record in train] == [("bbbb-pa", None), ("cccc", "bbbb-pa")]


def test_image_files_are_looked_for_only_when_asked(archive: Path, tmp_path: Path) -> None:
    (archive / JPG / "files/p10/p10000032/s50000001/aaaa-ap.jpg").unlink()
    (archive / JPG / "files/p12/p12000012/s52000001/eeee.jpg").unlink()
    assert len(prepare(archive, tmp_path / "all")["train"]) == 5
    checked = prepare(archive, tmp_path / "checked", check_images=True)
    assert [record["id"] for record in checked["train"]] == ["aaaa-lat", "bbbb-pa", "bbbb-lat", "cccc"]
    dropped = summary_of(tmp_path / "checked")["dropped"]
    assert dropped["images"] == {"image file missing": {"count": 2, "examples": ["aaaa-ap", "eeee"]}}
    assert dropped["studies"]["study without an image file"] == {"count": 1, "examples": ["s52000001"]}


def test_negbio_stands_in_for_chexpert_and_none_leaves_labels_out(archive: Path, tmp_path: Path) -> None:
    (archive / JPG / "mimic-cxr-2.0.0-chexpert.csv.gz").unlink()
    columns = tuple("Airspace Opacity" if name == "Lung Opacity" else name for name in FINDINGS_COLUMNS)
    row = ("10000032", "50000001", *("-1" if name == "Airspace Opacity" else "" for name in columns))
    write_table(archive / JPG / "mimic-cxr-2.0.0-negbio.csv.gz", ("subject_id", "study_id", *columns), [row])
    assert prepare(archive, tmp_path / "a")["train"][0]["labels"] == [0, 0, 3] + [0] * 11
    assert "labels" not in prepare(archive, tmp_path / "b", labels="none")["train"][0]
    with pytest.raises(DataError, match=r"needed mimic-cxr-2\.0\.0-chexpert\.csv\.gz.*--labels chexpert asks for"):
        prepare(archive, tmp_path / "c", labels="chexpert")


def test_images_of_only_one_table_are_dropped_with_the_reason(archive: Path, tmp_path: Path) -> None:
    rows = [(r.dicom, r.study, r.patient, r.split) for r in ROWS if r.dicom != "bbbb-lat"]
    rows.append(("zzzz", "50000009", "10000032", "train"))
    write_table(archive / JPG / "mimic-cxr-2.0.0-split.csv.gz", ("dicom_id", "study_id", "subject_id", "split"), rows)
    content = prepare(archive, tmp_path / "out")
    assert [r["id"] for r in content["train"]] == ["aaaa-ap", "aaaa-lat", "bbbb-pa", "cccc"]
    assert summary_of(tmp_path / "out")["dropped"]["images"] == {
        "image not in the split list, or twice in the metadata": {"count": 1, "examples": ["bbbb-lat"]},
        "image not in the metadata": {"count": 1, "examples": ["zzzz"]},
    }


def test_a_second_run_writes_the_same_and_other_content_is_not_replaced(archive: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    prepare(archive, out)
    before = (out / "annotation.json").read_bytes()
    prepare(archive, out)
    assert (out / "annotation.json").read_bytes() == before
    with pytest.raises(DataError, match=r"needed no file or one of the same content.*--overwrite"):
        prepare(archive, out, entries="study")
    assert (out / "annotation.json").read_bytes() == before
    assert len(prepare(archive, out, entries="study", overwrite=True)["train"]) == 3
    assert sorted(path.name for path in out.iterdir()) == ["annotation.json", "summary.json"]


def test_out_may_lie_in_the_archive(archive: Path) -> None:
    assert prepare(archive, archive / "out") == prepare(archive, archive / "out")


def rewrite(path: Path, old: str, new: str) -> None:
    text = gzip.decompress(path.read_bytes()).decode()
    assert old in text
    path.write_bytes(gzip.compress(text.replace(old, new, 1).encode()))


@pytest.mark.parametrize(
    ("table", "old", "new", "message"),
    [
        ("split", "train", "training", r"split\.csv\.gz: image bbbb-lat: .* train, validate, test, got 'training'"),
        ("split", "dicom_id", "image", r"split\.csv\.gz: needed the column\(s\) dicom_id, got: image, study_id"),
        ("split", "bbbb-pa,50000002,10000032,train", "bbbb-pa", r"split\.csv\.gz: line 3: expected .* 4 fields, got 1"),
        ("split", "aaaa-lat,50000001,10000032,train", "aaaa-lat,1,1,test", "aaaa-lat: expected patient 10000032 and"),
        ("split", "cccc,50000003,10000032,train", "cccc,1,1,test", "all studies of patient 10000032 in train"),
        ("metadata", "21800626", "2180-06-26", r"image bbbb-lat: expected StudyDate YYYYMMDD.*got '2180-06-26'"),
        ("metadata", "84556.875", "250000", r"image aaaa-lat: .*got '21800506' and '250000'"),
        ("metadata", "21500228", "21500230", r"image eeee: .*got '21500230'"),
        ("metadata", "ViewPosition", "View", r"metadata\.csv\.gz: needed the column\(s\) ViewPosition, got: dicom_id"),
        ("chexpert", "-1.0", "2.0", r"chexpert\.csv\.gz: study 50000002: expected 1, 0, -1 or blank.*got '2\.0'"),
        ("chexpert", "Edema", "Oedema", r"chexpert\.csv\.gz: needed the column\(s\) edema, got"),
    ],
)
def test_damaged_tables_are_refused(archive: Path, tmp_path: Path, table, old, new, message) -> None:
    rewrite(archive / JPG / f"mimic-cxr-2.0.0-{table}.csv.gz", old, new)
    with pytest.raises(DataError, match=message):
        prepare(archive, tmp_path / "out")
    assert list((tmp_path / "out").glob("*")) == []


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mimic-cxr-2.0.0-split.csv.gz", r"needed mimic-cxr-2\.0\.0-split\.csv\.gz or .*official split"),
        ("mimic-cxr-2.0.0-metadata.csv.gz", r"needed mimic-cxr-2\.0\.0-metadata\.csv\.gz or .*views and dates"),
        ("mimic-cxr-reports.zip", r"needed MIMIC-CXR's reports, .*not with MIMIC-CXR-JPG"),
    ],
)
def test_a_missing_file_is_named(archive: Path, tmp_path: Path, name: str, message: str) -> None:
    next(archive.rglob(name)).unlink()
    with pytest.raises(DataError, match=message):
        prepare(archive, tmp_path / "out")


def test_a_cut_off_file_is_named(archive: Path, tmp_path: Path) -> None:
    zipped, table = archive / TXT / "mimic-cxr-reports.zip", archive / JPG / "mimic-cxr-2.0.0-metadata.csv.gz"
    whole = table.read_bytes()
    table.write_bytes(whole[:-40])
    with pytest.raises(DataError, match=r"metadata\.csv\.gz: expected a CSV file, could not read on after line"):
        prepare(archive, tmp_path / "out")
    table.write_bytes(whole)
    data = zipped.read_bytes()
    zipped.write_bytes(data[:45] + bytes(90) + data[135:])
    with pytest.raises(DataError, match=r"mimic-cxr-reports\.zip: (files/p10/p10000032/s50000001\.txt|expected)"):
        prepare(archive, tmp_path / "out")
    zipped.write_bytes(data[:200])
    with pytest.raises(DataError, match=r"mimic-cxr-reports\.zip: expected a zip file of reports"):
        prepare(archive, tmp_path / "out")


def test_two_versions_and_nothing_left_are_refused(archive: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"(?s)nothing is left.*image of the requested views"):
        prepare(archive, tmp_path / "out", views=("SWIMMERS",))
    copy = archive / "copy" / "mimic-cxr-2.0.0-split.csv.gz"
    copy.parent.mkdir()
    copy.write_bytes((archive / JPG / copy.name).read_bytes())
    with pytest.raises(DataError, match=r"expected one mimic-cxr-2\.0\.0-split\.csv\.gz, got 2"):
        prepare(archive, tmp_path / "out")
    with pytest.raises(DataError, match="nowhere, which does not exist"):
        prepare(tmp_path / "nowhere", tmp_path / "out")


def test_the_command_prints_the_counts_and_the_next_command(archive: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "out"
    assert main(["mimic-cxr", str(archive), str(out), "--entries", "study", "--views", "PA", "AP"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "read: 9 images, 7 studies"
    assert printed[1] == "kept, train: 2 entries, 2 studies, 2 images, 1 patients"
    assert "dropped studies: 1 study without a report file (such as s52000003)" in printed
    assert printed[-1].endswith(f"--data {out / 'annotation.json'} --images {archive / JPG / 'files'}")


def test_every_option_has_a_default_that_works() -> None:
    options = parse_options(["mimic-cxr", "ARCHIVE", "OUT"])
    assert options == MimicCxrOptions(Path("ARCHIVE"), Path("OUT"))
    assert (options.section, options.entries, options.labels, options.views) == ("findings", "image", "auto", ())


def test_a_zip_with_another_top_folder_is_read(archive: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(archive / TXT / "mimic-cxr-reports.zip", "w") as zipped:
        zipped.writestr("README.txt", "no report")
        zipped.writestr("mimic-cxr-reports/p10/p10000032/s50000001.txt", REPORTS["50000001"])
    assert [record["id"] for record in prepare(archive, tmp_path / "out")["train"]] == ["aaaa-ap", "aaaa-lat"]
    with zipfile.ZipFile(archive / TXT / "mimic-cxr-reports.zip", "w") as zipped:
        zipped.writestr("README.txt", "no report")
    with pytest.raises(DataError, match=r"expected reports at files/p10/p10000032/s50414267\.txt, got README\.txt"):
        prepare(archive, tmp_path / "empty")

"""CheXpert Plus, ReXGradient-160K, PadChest-GR and ReXrank files made into annotations: values, counts, refusals."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from datetime import date
from pathlib import Path

import numpy as np
import pytest
from collection_files import (
    chexpert_row,
    padchest_rows,
    png,
    rexgradient_study,
    write_chexpert,
    write_large_chexpert,
    write_padchest,
    write_rexgradient,
)

from diffrgen.errors import DataError
from diffrgen.images import read_grey
from diffrgen.preparation import (
    ChexpertPlusOptions,
    PadchestGrOptions,
    RexGradientOptions,
    ReXrankInputOptions,
    json_stream,
    prepare_chexpert_plus,
    prepare_padchest_gr,
    prepare_rexgradient,
    prepare_rexrank,
)
from diffrgen.preparation.json_stream import json_members
from diffrgen.preparation.packed_images import JoinedParts, numbered_parts
from diffrgen.prepare import main
from diffrgen.records import read_annotation

EFFUSION, CLEAR = "Left effusion.", "The lungs\n are clear."
CHEXPERT = (
    # The second report is listed before the first one; study 3 has an impression alone.
    chexpert_row("patient00001", 2, "AP", 7, EFFUSION),
    chexpert_row("patient00001", 1, "LATERAL", 3, CLEAR, "Normal."),
    chexpert_row("patient00001", 1, "PA", 3, CLEAR, "Normal."),
    chexpert_row("patient00001", 3, "AP", 9, "", "Worse."),
    chexpert_row("patient00002", 1, "AP", 1, CLEAR, split="valid"),
)


def content_of(out: Path) -> dict:
    return json.loads((out / "annotation.json").read_text(encoding="utf-8"))


def summary_of(out: Path) -> dict:
    return json.loads((out / "summary.json").read_text(encoding="utf-8"))


def chexpert(root: Path, out: Path, **options: object) -> dict:
    prepare_chexpert_plus(ChexpertPlusOptions(root, out, **options))
    return content_of(out)


def rexgradient(root: Path, out: Path, **options: object) -> dict:
    prepare_rexgradient(RexGradientOptions(root, out, **options))
    return content_of(out)


def padchest(root: Path, out: Path, **options: object) -> dict:
    prepare_padchest_gr(PadchestGrOptions(root, out, **options))
    return content_of(out)


def test_chexpert_plus_by_study_with_its_order_labels_and_views(tmp_path: Path) -> None:
    states = {"Cardiomegaly": 1, "Edema": -1, "No Finding": 0}
    root = write_chexpert(tmp_path / "c", CHEXPERT, labels={"train/patient00001/study1/view1_frontal.jpg": states})
    content = chexpert(root, tmp_path / "out")

    assert content["train"] == [
        {
            "id": "patient00001_study2",
            "study_id": "patient00001_study2",
            "patient_id": "patient00001",
            "report": "Left effusion.",
            "image_path": ["train/patient00001/study2/view1_frontal.png"],
            "age": 63.0,
            "sex": "F",
            "view": "AP",
            "prior_id": "patient00001_study1",
            "findings": "Left effusion.",
            "history": "Shortness of breath. COPD.",
        },
        {
            "id": "patient00001_study1",
            "study_id": "patient00001_study1",
            "patient_id": "patient00001",
            "report": "The lungs are clear.",
            "image_path": [f"train/patient00001/study1/view1_{side}.png" for side in ("frontal", "lateral")],
            # CheXbert's order: cardiomegaly second, edema fifth (uncertain), no finding last (negative).
            "labels": [0, 1, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 2],
            "age": 63.0,
            "sex": "F",
            "view": "PA",
            "views": ["PA", "LATERAL"],
            "findings": "The lungs are clear.",
            "impression": "Normal.",
            "history": "Shortness of breath. COPD.",
        },
    ]
    assert [record["id"] for record in content["val"]] == ["patient00002_study1"]
    summary = summary_of(tmp_path / "out")
    assert summary["read"] == {"studies": 4, "images": 5}
    assert summary["dropped"]["studies"] == {
        "report without findings": {"count": 1, "examples": ["patient00001_study3"]}
    }

    both = chexpert(root, tmp_path / "both", section="both", labels="none", entries="image", images="dicom")["train"]
    assert [(r["id"], r["report"], r.get("prior_id")) for r in both] == [
        ("patient00001_study2-0", "Left effusion.", "patient00001_study1-0"),
        ("patient00001_study1-0", "The lungs are clear. Normal.", None),
        ("patient00001_study1-1", "The lungs are clear. Normal.", None),
        ("patient00001_study3-0", "Worse.", "patient00001_study2-0"),
    ]
    assert both[1]["image_path"] == ["train/patient00001/study1/view1_frontal.dcm"]
    test = chexpert(root, tmp_path / "test", valid_as="test")
    assert [record["id"] for record in test["test"]] == ["patient00002_study1"]


def test_images_are_unpacked_and_those_missing_or_damaged_counted(tmp_path: Path) -> None:
    def name(study: int) -> str:
        return f"train/patient00001/study{study}/view1_frontal.png"

    images = {name(2): png(3000, bits=16), name(1): png(), "train/other.png": png()}
    root = write_chexpert(tmp_path / "c", CHEXPERT, images=images)
    packed = root / "PNG" / "images_0.zip"
    data = bytearray(packed.read_bytes())
    # One bit of the stored pixels of study 1 flips: the checksum of its member is another.
    data[data.index(images[name(1)]) + 60] ^= 1
    packed.write_bytes(bytes(data))

    content = chexpert(root, tmp_path / "out", unpack=True)

    assert [(r["id"], r.get("prior_id")) for r in content["train"]] == [("patient00001_study2", None)]
    assert summary_of(tmp_path / "out")["dropped"]["images"] == {
        "image missing in the packed files": {
            "count": 2,
            "examples": ["train/patient00001/study1/view1_lateral.png", "valid/patient00002/study1/view1_frontal.png"],
        },
        "image damaged in the packed files": {"count": 1, "examples": [name(1)]},
    }
    there = sorted(path.relative_to(tmp_path / "out" / "images").as_posix() for path in (tmp_path / "out").rglob("*.png"))
    assert there == [name(2)]
    # 12 bits are told from the greatest value, 3000: round(255 * 3000 / 4095) = 187.
    assert np.unique(np.asarray(read_grey(tmp_path / "out" / "images" / name(2)))).tolist() == [187]
    read_annotation(tmp_path / "out" / "annotation.json")
    listed = chexpert(root, tmp_path / "listed", check_images=True)
    assert [len(record["image_path"]) for record in listed["train"]] == [1, 1]


def test_what_chexpert_plus_cannot_be_is_refused(tmp_path: Path) -> None:
    root = write_chexpert(tmp_path / "c", [*CHEXPERT, chexpert_row("patient00001", 4, "AP", 9, CLEAR, split="valid")])
    with pytest.raises(DataError, match=r"patient patient00001 in train, got study patient00001_study4 in val"):
        chexpert(root, tmp_path / "out")
    write_chexpert(root, [*CHEXPERT, CHEXPERT[0]])
    chexpert(root, tmp_path / "twice")
    assert summary_of(tmp_path / "twice")["dropped"]["images"] == {
        "duplicate image": {"count": 1, "examples": ["train/patient00001/study2/view1_frontal.png"]}
    }
    with pytest.raises(DataError, match=r"needed report_fixed\.json .*--labels report"):
        chexpert(root, tmp_path / "labels", labels="report")
    write_chexpert(root, [chexpert_row("patient00001", 1, "AP", 1, CLEAR, split="dev")])
    with pytest.raises(DataError, match="expected a split out of train, valid, got 'dev'"):
        chexpert(root, tmp_path / "split")
    (root / "PNG" / "images_0.zip").write_bytes(b"no zip")
    with pytest.raises(DataError, match=r"images_0\.zip: expected a zip file of images, cannot open it"):
        chexpert(root, tmp_path / "zip")
    (root / "chexbert_labels").mkdir()
    (root / "chexbert_labels" / "findings_fixed.json").write_text('{"path_to_image": "a/b/c/d", "Edema": 2}\n')
    with pytest.raises(DataError, match=r"findings_fixed\.json: line 1: expected a JSON object with path_to_image"):
        chexpert(root, tmp_path / "json")


REXGRADIENT = {
    "train": [
        rexgradient_study("7", "71", "20200305", EFFUSION),
        rexgradient_study("7", "72", "20200101", CLEAR, views=("LATERAL", "AP")),
        # Of one day: not each other's prior.
        rexgradient_study("7", "73", "20200305", CLEAR, views=("UNKNOWN",)),
        rexgradient_study("7", "71", "20200305", EFFUSION),
        rexgradient_study("8", "81", "", "", impression="Normal."),
    ],
    "test": [rexgradient_study("9", "91", "20210101", CLEAR)],
}


def test_rexgradient_by_date_with_views_and_sections(tmp_path: Path) -> None:
    content = rexgradient(write_rexgradient(tmp_path / "r", REXGRADIENT), tmp_path / "out")
    first = content["train"][0]
    day = date(2020, 3, 5).toordinal()
    folder = "deid_png/7/71/studies/1.2.71/series/1/instances"
    assert first == {
        "id": "p7_a71_s1.2.71",
        "study_id": "p7_a71_s1.2.71",
        "patient_id": "7",
        "report": "Left effusion.",
        "image_path": [f"{folder}/0.png", f"{folder}/1.png"],
        "study_date": "2020-03-05",
        "days": day,
        "age": 14.0,
        "sex": "M",
        "view": "PA",
        "views": ["PA", "LATERAL"],
        "prior_id": "p7_a72_s1.2.72",
        "findings": "Left effusion.",
        "indication": "Cough",
    }
    assert [(r["id"][:6], r.get("views"), r.get("prior_id", "")[:6]) for r in content["train"][1:]] == [
        ("p7_a72", ["AP", "LATERAL"], ""),
        ("p7_a73", None, "p7_a72"),
    ]
    assert [len(content[split]) for split in ("val", "test")] == [0, 1]
    assert summary_of(tmp_path / "out")["dropped"]["studies"] == {
        "duplicate study": {"count": 1, "examples": ["p7_a71_s1.2.71"]},
        "report without findings": {"count": 1, "examples": ["p8_a81_s1.2.81"]},
    }
    table = rexgradient(write_rexgradient(tmp_path / "t", REXGRADIENT, table=True), tmp_path / "table")
    assert table["train"][0] == {key: value for key, value in first.items() if key not in ("view", "views")}
    assert "the views are unknown" in summary_of(tmp_path / "table")["notes"][0]


def write_tar(root: Path, images: dict[str, bytes], *, parts: int = 3) -> bytes:
    """Write deid_png.part00, ... of a zstandard-compressed tar file; return the file."""
    zstandard = pytest.importorskip("zstandard")
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as archive:
        for name, data in images.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    packed = zstandard.ZstdCompressor().compress(plain.getvalue())
    size = -(-len(packed) // parts)
    for number in range(parts):
        (root / f"deid_png.part{number:02d}").write_bytes(packed[number * size : (number + 1) * size])
    return packed


def test_rexgradients_images_come_out_of_parts_of_a_compressed_tar_file(tmp_path: Path) -> None:
    root = write_rexgradient(tmp_path / "r", REXGRADIENT)
    paths = [path for _, record in REXGRADIENT["train"][:3] for path in record["ImagePath"]]
    images = {path.removeprefix("../"): png(1000 + number, bits=16) for number, path in enumerate(paths)}
    left_out, broken = list(images)[1], list(images)[4]
    images[broken] = b"no image"
    del images[left_out]
    write_tar(root, images)

    content = rexgradient(root, tmp_path / "out", unpack=True)

    assert [len(r["image_path"]) for r in content["train"]] == [1, 2]
    # 10 bits: round(255 * 1002 / 1023) = 250.
    third = tmp_path / "out" / "images" / list(images)[1]
    assert np.unique(np.asarray(read_grey(third))).tolist() == [250]
    dropped = summary_of(tmp_path / "out")["dropped"]["images"]
    # Of the study in test no image is there.
    assert {reason: each["count"] for reason, each in dropped.items()} == {
        "image missing in the packed files": 3,
        "image damaged in the packed files": 1,
    }
    (root / "deid_png.part01").unlink()
    with pytest.raises(DataError, match=r"needed every part of deid_png\.part\* once, got no part 1"):
        rexgradient(root, tmp_path / "part", unpack=True)
    (root / "deid_png.part01").write_bytes(b"\0" * 100)
    with pytest.raises(DataError, match=r"deid_png\.part00: expected parts of a tar\.zst file, cannot read on"):
        rexgradient(root, tmp_path / "damaged", unpack=True)


def test_what_rexgradient_cannot_be_is_refused(tmp_path: Path) -> None:
    two = {"train": REXGRADIENT["train"], "test": [rexgradient_study("7", "99", "20200101", CLEAR)]}
    with pytest.raises(DataError, match=r"patient 7 in train, got study p7_a99_s1\.2\.99 in test"):
        rexgradient(write_rexgradient(tmp_path / "two", two), tmp_path / "out")
    name, record = rexgradient_study("1", "2", "20200101", CLEAR)
    root = write_rexgradient(tmp_path / "views", {"train": [(name, record | {"ImageViewPosition": ["PA"]})]})
    with pytest.raises(DataError, match=r"expected ImageViewPosition as a list of 2 views, got \['PA'\]"):
        rexgradient(root, tmp_path / "out")
    root = write_rexgradient(tmp_path / "path", {"train": [(name, record | {"ImagePath": ["../../etc/x.png"] * 2})]})
    with pytest.raises(DataError, match=r"image path '../../etc/x\.png' leaves the images folder"):
        rexgradient(root, tmp_path / "out")
    (root / "metadata" / "valid_metadata_view_position.json").unlink()
    with pytest.raises(DataError, match=r"needed valid_metadata_view_position\.json or valid_metadata\.csv"):
        rexgradient(root, tmp_path / "out")


def test_padchest_gr_by_sentence_with_boxes_and_dates(tmp_path: Path) -> None:
    rows = [
        *padchest_rows("s2", "p1", "20150203", ["Left effusion.", "Normal heart."]),
        *padchest_rows("s1", "p1", "20140915", ["Clear lungs."]),
        *padchest_rows("s3", "p2", "20150101", [], split="validation"),
        *padchest_rows("s4", "p3", "20150101", ["Left effusion."], split="test"),
    ]
    root = write_padchest(tmp_path / "p", rows)
    content = padchest(root, tmp_path / "out", unpack=True)
    assert content["train"][0] == {
        "id": "s2",
        "study_id": "s2",
        "patient_id": "p1",
        "report": "Left effusion. Normal heart.",
        "image_path": ["s2.png"],
        "study_date": "2015-02-03",
        "days": date(2015, 2, 3).toordinal(),
        "age": 71.0,
        "sex": "M",
        "sentences": [
            {
                "text": "Left effusion.",
                "boxes": [[0.1, 0.2, 0.3, 0.4]],
                "extra_boxes": [],
                "labels": ["label"],
                "locations": [],
                "progression": "worsening",
                "abnormal": True,
            },
            {
                "text": "Normal heart.",
                "boxes": [],
                "extra_boxes": [],
                "labels": ["label"],
                "locations": [],
                "progression": None,
                "abnormal": False,
            },
        ],
        "prior_id": "s1",
        "findings": "Left effusion. Normal heart.",
    }
    assert [[record["id"] for record in content[split]] for split in content] == [["s2", "s1"], [], ["s4"]]
    assert summary_of(tmp_path / "out")["dropped"]["studies"] == {"report without findings": {"count": 1, "examples": ["s3"]}}
    # 16 bits: round(255 * 40000 / 65535) = 156.
    grey = read_grey(tmp_path / "out" / "images" / "s4.png")
    assert np.unique(np.asarray(grey)).tolist() == [156]
    assert padchest(root, tmp_path / "es", language="es")["test"][0]["report"] == "Left effusion. (es)"
    (root / "PadChest_GR.zip.002").unlink()
    with pytest.raises(DataError, match=r"needed every part of PadChest_GR\.zip\.\* once, got no part 2"):
        padchest(root, tmp_path / "part")
    (root / "grounded_reports_20240819.json").write_text("{}", encoding="utf-8")
    for part in root.glob("PadChest_GR.zip.*"):
        part.unlink()
    with pytest.raises(DataError, match=r"grounded_reports_20240819\.json: expected a list of reports, got dict"):
        padchest(root, tmp_path / "list")


def test_a_rexrank_file_becomes_records(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shared = {"frontal_lateral": ["Lateral", "Frontal"], "image_path": ["/p/2.png", "/p/1.png"]}
    context = "Age:63.Gender:F.Indication: Cough. Fever.Comparison: None."
    studies = {
        "a": {**shared, "section_findings": CLEAR, "section_impression": "Normal.", "context": context, "subject_id": 5},
        "b": {**shared, "report": "Findings: Left effusion. Impression: Worse.", "split": "validate"},
        "c": {**shared, "report": "Impression: Worse."},
    }
    file = tmp_path / "input.json"
    file.write_text(json.dumps(studies), encoding="utf-8")
    prepare_rexrank(ReXrankInputOptions(file, tmp_path / "out"))
    content = content_of(tmp_path / "out")
    assert content["test"] == [
        {
            "id": "a",
            "study_id": "a",
            "patient_id": "5",
            "report": "The lungs are clear.",
            "image_path": ["p/1.png", "p/2.png"],
            "age": 63.0,
            "sex": "F",
            "view": "FRONTAL",
            "views": ["FRONTAL", "LATERAL"],
            "findings": "The lungs are clear.",
            "impression": "Normal.",
            "indication": "Cough. Fever.",
            "comparison": "None.",
        }
    ]
    assert [(r["id"], r["report"], r["impression"]) for r in content["val"]] == [("b", "Left effusion.", "Worse.")]
    assert main(["rexrank", str(file), str(tmp_path / "command"), "--section", "both"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[-1].endswith(f"--data {tmp_path / 'command' / 'annotation.json'} --images FOLDER")
    assert [len(records) for records in content_of(tmp_path / "command").values()] == [0, 1, 2]
    file.write_text(json.dumps(studies)[:-30], encoding="utf-8")
    with pytest.raises(DataError, match=r"input\.json: expected a JSON object of records, cannot read on"):
        prepare_rexrank(ReXrankInputOptions(file, tmp_path / "cut"))


def test_json_is_read_member_by_member_wherever_blocks_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = {"ä": [1, 2.5, {"b": "c\n\"d"}], "e": None, "f": 123456}
    file = tmp_path / "a.json"
    for indent in (None, 2):
        file.write_text(json.dumps(content, indent=indent), encoding="utf-8")
        for block in range(1, 12):
            monkeypatch.setattr(json_stream, "BLOCK", block)
            assert dict(json_members(file)) == content
    file.write_text(" { } ", encoding="utf-8")
    assert list(json_members(file)) == []
    for damaged in ("", "[1]", '{"a": 1', '{"a" 1}', '{"a": 1,}', '{1: 2}', '{"a": x}'):
        file.write_text(damaged, encoding="utf-8")
        with pytest.raises(DataError, match="expected a JSON object of records"):
            list(json_members(file))


def test_parts_read_as_the_file_that_they_are_of(tmp_path: Path) -> None:
    data = bytes(range(256)) * 4
    parts = [tmp_path / f"x.{number:03d}" for number in (1, 2, 3, 10)]
    for part, start, end in zip(parts, (0, 100, 100, 700), (100, 100, 700, 1024), strict=True):
        part.write_bytes(data[start:end])
    with pytest.raises(DataError, match="got no part 4"):
        numbered_parts(parts)
    parts[3] = parts[3].rename(tmp_path / "x.004")
    joined = io.BufferedReader(JoinedParts(numbered_parts(parts[::-1])), 64)
    assert joined.read() == data
    joined.seek(690)
    assert joined.read(30) == data[690:720]
    joined.seek(-5, io.SEEK_END)
    assert joined.read() == data[-5:]
    assert zipfile.is_zipfile(joined) is False


def test_rows_of_chexpert_plus_are_read_three_times_and_never_held(tmp_path: Path) -> None:
    root = write_large_chexpert(tmp_path / "c", rows=1200, studies=1000, patients=400)
    content = chexpert(root, tmp_path / "out")
    summary = summary_of(tmp_path / "out")
    assert summary["read"] == {"studies": 1000, "images": 1200}
    assert [(kept["entries"], kept["images"]) for kept in summary["kept"].values()] == [(995, 1194), (5, 6), (0, 0)]
    # Patients 0 to 199 have three studies, the others two: all but the first of each have a prior.
    linked = [record for split in content for record in content[split] if "prior_id" in record]
    assert len(linked) == 1000 - 400

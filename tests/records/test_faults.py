"""Unusable annotations: each fault is a DataError that names the file, the record and what came."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from diffrgen.errors import DataError
from diffrgen.records import read_annotation

GOOD = {"id": "good", "report": "Clear.", "image_path": ["x.png"]}


def write(folder: Path, content: object) -> Path:
    (folder / "x.png").touch()
    path = folder / "annotation.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{'train': []}", "is not a JSON file"),
        ("", "is not a JSON file"),
        ("[" * 100_000, "is not a JSON file"),
        ("3", "expected an object with train, val, test or a list, got int"),
        ({"training": [], "images": {}}, "expected the splits train, val, test, got 'training'; rename it to 'train'"),
        ({}, "needs the key 'train', got the keys: none"),
        ({"train": {"a": 1}}, "'train' must be a list of records, got dict"),
        ({"train": [], "val": "x"}, "'val' must be a list of records, got str"),
    ],
)
def test_another_shape_of_file_is_refused(tmp_path: Path, content: object, message: str) -> None:
    path = write(tmp_path, content)
    with pytest.raises(DataError) as caught:
        read_annotation(path)
    assert str(path) in str(caught.value)
    assert message in str(caught.value)


def test_a_missing_file_a_folder_and_bytes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent\.json, which does not exist"):
        read_annotation(tmp_path / "absent.json")
    with pytest.raises(DataError, match="which is a folder"):
        read_annotation(tmp_path)
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match=r"bytes\.json is not a JSON file"):
        read_annotation(tmp_path / "bytes.json")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"id": None}, "train[1]: 'id' must be a text or an integer, got None"),
        ({"id": True}, "'id' must be a text or an integer, got True"),
        ({"id": "good"}, "train[1] (id 'good'): this id is also that of train[0] (id 'good')"),
        ({"report": 5}, "train[1] (id 'bad'): 'report' must be a text, got 5"),
        ({"image_path": []}, "'image_path' must be a path or a list of at least one path, got []"),
        ({"image_path": [1]}, "'image_path' must be a path or a list"),
        ({"image_path": "../x.png"}, "'../x.png' leaves the images folder"),
        ({"image_path": "a/../../x.png"}, "leaves the images folder"),
        ({"image_path": "a\\..\\x.png"}, "leaves the images folder"),
        ({"image_path": "/etc/passwd"}, "'/etc/passwd' is absolute"),
        ({"image_path": "C:\\x.png"}, "is absolute"),
        ({"image_path": " "}, "an empty image path"),
        ({"image_path": "x\0.png"}, "NUL"),
        ({"labels": [0] * 13}, "'labels' must hold 14 or 18 states, got 13"),
        ({"labels": [0] * 18}, "expected 14 labels as in the records before, got 18"),
        ({"labels": [0] * 13 + [4]}, "uncertain), got 4"),
        ({"labels": [0] * 13 + [-1]}, "uncertain), got -1; map other codings"),
        ({"labels": [0] * 13 + [1.0]}, "uncertain), got 1.0"),
        ({"labels": [0] * 13 + [True]}, "uncertain), got True"),
        ({"labels": [0] * 13 + [None]}, "uncertain), got None"),
        ({"labels": "0"}, "'labels' must be a list of 14 or 18 states, got str"),
        ({"days": "soon"}, "'days' must be a finite number, got 'soon'"),
        ({"days": float("nan")}, "'days' must be a finite number, got nan"),
        ({"study_date": 20180231}, "'study_date' must be YYYY-MM-DD or YYYYMMDD, got 20180231"),
        ({"study_date": "last May"}, "'study_date' must be"),
        ({"view": ["PA"]}, "'view' must be a text or an integer, got ['PA']"),
        ({"prior_id": "absent"}, "'prior_id' must name another study of the file, got 'absent'"),
        ({"prior_id": "bad"}, "'prior_id' must name another study of the file, got 'bad'"),
    ],
)
def test_a_wrong_field_is_named_with_its_record(tmp_path: Path, change: dict[str, object], message: str) -> None:
    first = {**GOOD, "labels": [0] * 14}
    path = write(tmp_path, {"train": [first, {**GOOD, "id": "bad", **change}]})
    with pytest.raises(DataError) as caught:
        read_annotation(path)
    assert str(path) in str(caught.value)
    assert message in str(caught.value)


def test_a_record_that_is_no_object_and_an_id_in_two_splits_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"val\[0\]: expected an object with id, report and image_path, got str"):
        read_annotation(write(tmp_path, {"train": [GOOD], "val": ["x"]}))
    with pytest.raises(DataError, match=r"test\[0\] \(id 'good'\): this id is also that of train\[0\]"):
        read_annotation(write(tmp_path, {"train": [GOOD], "test": [GOOD]}))


def test_missing_images_and_empty_reports_are_all_reported_or_skipped(tmp_path: Path) -> None:
    missing = {**GOOD, "id": "missing", "image_path": ["p/absent.png"]}
    empty = {**GOOD, "id": "empty", "report": " . "}
    follow_up = {**GOOD, "id": "follow-up", "prior_id": "missing"}
    path = write(tmp_path, {"train": [GOOD, missing, empty, follow_up], "test": [{**empty, "id": "test-empty"}]})
    reasons = (
        f"train[1] (id 'missing'): image 'p/absent.png' is not in the folder {tmp_path} (another one: --images)",
        "train[2] (id 'empty'): report without a word, ' . '",
        "test[0] (id 'test-empty'): report without a word, ' . '",
    )
    with pytest.raises(DataError) as caught:
        read_annotation(path)
    assert f"{path}: 3 unusable record(s)" in str(caught.value)
    assert all(reason in str(caught.value) for reason in reasons)

    splits = read_annotation(path, skip_broken=True)
    assert splits.skipped == reasons
    assert [(s.id, s.prior_id) for s in splits] == [("good", None), ("follow-up", None)]


def test_only_the_first_faults_are_listed(tmp_path: Path) -> None:
    records = [{**GOOD, "id": str(number), "image_path": "absent.png"} for number in range(9)]
    with pytest.raises(DataError) as caught:
        read_annotation(write(tmp_path, {"train": [GOOD, *records]}))
    assert "9 unusable record(s)" in str(caught.value)
    assert str(caught.value).count("absent.png") == 5
    assert str(caught.value).endswith("and 4 more")


def test_skipping_is_no_way_to_an_empty_data_set_or_out_of_the_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="1 unusable"):
        read_annotation(write(tmp_path, {"train": [{**GOOD, "image_path": "absent.png"}]}), skip_broken=True)
    with pytest.raises(DataError, match="leaves the images folder"):
        read_annotation(write(tmp_path, {"train": [GOOD, {**GOOD, "image_path": "../y"}]}), skip_broken=True)

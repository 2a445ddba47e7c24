"""Annotation files and image folders read into studies: values, variants of the format, priors."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

import pytest

from diffrgen.errors import DataError
from diffrgen.records import Sections, Study, StudySplits, link_priors, read_annotation, without_images


def write(folder: Path, content: object) -> Path:
    path = folder / "annotation.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def record(name: object = "a", **fields: object) -> dict[str, object]:
    return {"id": name, "report": "Clear lungs.", "image_path": ["x.png"], **fields}


def study(name: str, *, patient: str | None = "p", days: float | None = None) -> Study:
    return Study(name, "r", (Path("x.png"),), "train", patient_id=patient, days=days)


def test_every_field_of_a_record_is_read(tmp_path: Path) -> None:
    (tmp_path / "images" / "p").mkdir(parents=True)
    for name in ("x.png", "p/y.png"):
        (tmp_path / "images" / name).touch()
    full = record(
        7, image_path=["x.png", "p/y.png"], labels=[0, 1, 2, 3] * 3 + [0, 1], patient_id=12, days=3, view="PA"
    )
    path = write(tmp_path, {"train": [full], "val": [record("b")], "test": [record("c", prior_id=7, report="")]})

    splits = read_annotation(path, check_reports=False)

    root = tmp_path / "images"
    assert splits.train == (
        Study(
            "7",
            "Clear lungs.",
            (root / "x.png", root / "p/y.png"),
            "train",
            labels=(0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1),
            patient_id="12",
            days=3.0,
            view="PA",
            views=("frontal", "unknown"),
        ),
    )
    assert splits.val == (Study("b", "Clear lungs.", (root / "x.png",), "val"),)
    assert splits.test == (Study("c", "", (root / "x.png",), "test", prior_id="7"),)
    assert (splits.source, splits.skipped) == (path, ())


def test_sections_are_texts_and_anything_else_of_their_names_is_none(tmp_path: Path) -> None:
    (tmp_path / "x.png").touch()
    told = record("a", indication="Cough.", history="", findings={"edema": {"state": 1}}, technique=3, impression="Clear.")
    path = write(tmp_path, {"train": [told, record("b")]})

    first, second = read_annotation(path).train

    assert first.sections == Sections(indication="Cough.", impression="Clear.")
    assert first.sections.to_record() == {"impression": "Clear.", "indication": "Cough."}
    assert second.sections == Sections()


def test_images_lie_beside_the_file_or_where_the_caller_says(tmp_path: Path) -> None:
    (tmp_path / "x.png").touch()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "x.png").touch()
    path = write(tmp_path, {"train": [record(image_path="x.png")]})
    assert read_annotation(path).train[0].images == (tmp_path / "x.png",)
    elsewhere = read_annotation(path, images=tmp_path / "elsewhere")
    assert elsewhere.train[0].images == (tmp_path / "elsewhere" / "x.png",)
    with pytest.raises(DataError, match="nowhere does not exist"):
        read_annotation(path, images=tmp_path / "nowhere")


def test_a_flat_list_with_18_labels_becomes_the_test_split(tmp_path: Path) -> None:
    path = write(tmp_path, [record(4, labels=[2] * 18), record(5)])
    splits = read_annotation(path, check_files=False)
    assert [(s.id, s.split, s.labels) for s in splits] == [("4", "test", (2,) * 18), ("5", "test", None)]


def test_a_mimic_record_gives_patient_and_days(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        {
            "train": [
                record("a", subject_id=10000032, study_date=21800506),
                record("b", subject_id=10000032, study_date="2180-05-08"),
            ]
        },
    )
    first, second = read_annotation(path, check_files=False).train
    assert (first.patient_id, first.days) == ("10000032", float(date(2180, 5, 6).toordinal()))
    assert (second.days, second.prior_id) == (first.days + 2, "a")


def test_a_prior_is_the_latest_study_of_an_earlier_day() -> None:
    studies = [
        study("later", days=9),
        study("first", days=1),
        study("same-day-1", days=4),
        study("same-day-2", days=4),
        study("other", patient="q", days=2),
        study("undated"),
        study("nobody", patient=None, days=0),
    ]
    priors = {s.id: s.prior_id for s in link_priors(studies)}
    assert priors == {
        "later": "same-day-2",
        "first": None,
        "same-day-1": "first",
        "same-day-2": "first",
        "other": None,
        "undated": None,
        "nobody": None,
    }
    assert [s.id for s in link_priors(studies)] == [s.id for s in studies]


def test_priors_are_derived_within_a_split_and_given_ones_are_kept(tmp_path: Path) -> None:
    dated = {name: record(name, patient_id="p", days=day) for day, name in enumerate("abcd")}
    path = write(tmp_path, {"train": [dated["a"], dated["c"]], "test": [dated["b"], dated["d"]]})
    assert {s.id: s.prior_id for s in read_annotation(path, check_files=False)} == {
        "a": None,
        "c": "a",
        "b": None,
        "d": "b",
    }
    given = [dated["a"], dated["b"], {**dated["c"], "prior_id": "a"}]
    path = write(tmp_path, {"train": given})
    assert [s.prior_id for s in read_annotation(path, check_files=False).train] == [None, None, "a"]


def test_a_byte_order_mark_and_non_ascii_text_are_read(tmp_path: Path) -> None:
    path = tmp_path / "annotation.json"
    path.write_text(json.dumps({"train": [record(report="Silueta cardíaca normal.")]}), encoding="utf-8-sig")
    assert read_annotation(path, check_files=False).train[0].report == "Silueta cardíaca normal."


def test_studies_of_broken_images_are_left_out_and_counted() -> None:
    good = Study("good", "r", (Path("1.png"),), "train")
    bad = Study("bad", "r", (Path("2.png"),), "train")
    follow_up = Study("follow-up", "r", (Path("3.png"),), "train", prior_id="bad")
    splits = StudySplits(Path("a.json"), (good, bad, follow_up), (), (), ("before",))
    kept = without_images(splits, {Path("2.png"): "2.png: cut off"})
    assert [(s.id, s.prior_id) for s in kept] == [("good", None), ("follow-up", None)]
    assert kept.skipped == ("before", "train (id 'bad'): 2.png: cut off")


def test_the_real_data_sets_load(shared: Path) -> None:
    iu = read_annotation(shared / "iu_xray" / "annotation.json", check_files=False)
    assert [len(iu[split]) for split in ("train", "val", "test")] == [2069, 296, 590]
    covid = read_annotation(shared / "covid_cxr" / "annotation.json")
    assert [len(covid[split]) for split in ("train", "val", "test")] == [137, 28, 42]
    by_id = {s.id: s for s in covid}
    linked = [(s, by_id[s.prior_id]) for s in covid if s.prior_id is not None]
    assert len(linked) > 50
    assert all(s.patient_id == prior.patient_id and s.split == prior.split for s, prior in linked)
    assert all((prior.days or 0) < (s.days or 0) for s, prior in linked)

"""The views of a study: their kinds, which are used, and images that do not belong to it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffrgen.errors import DataError
from diffrgen.images import check_images
from diffrgen.records import Study, main_view, read_annotation, view_kind, without_images


def record(name: str, *images: str, **fields: object) -> dict[str, object]:
    return {"id": name, "report": "Clear lungs.", "image_path": list(images), **fields}


def write(folder: Path, *records: dict[str, object], index: str | None = None) -> Path:
    """An annotation file whose images lie in `images/`, those whose names begin with "absent" left out."""
    images = folder / "images"
    images.mkdir(exist_ok=True)
    for one in records:
        for name in one["image_path"]:
            if not name.startswith("absent"):
                (images / name).parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(np.full((8, 8), 90, np.uint8)).save(images / name)
    if index is not None:
        (folder / "images_index.csv").write_text(index)
    path = folder / "annotation.json"
    path.write_text(json.dumps({"train": list(records)}))
    return path


def names_and_views(path: Path, **options: object) -> list[tuple[list[str], tuple[str, ...]]]:
    studies = read_annotation(path, **options).train
    return [([image.name for image in study.images], study.views) for study in studies]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *((name, "frontal") for name in ("PA", "AP", "ap", "Frontal", "AP AXIAL", "AP LLD", "PA RLD", "AP_horizontal")),
        *((name, "lateral") for name in ("LATERAL", "Lateral", "LL", "RL", "XTABLE LATERAL", "left lateral", "L")),
        *((name, "unknown") for name in ("LAO", "RAO", "SWIMMERS", "unknown", "", None, "PAL")),
    ],
)
def test_names_of_views_stand_for_kinds(name, kind):
    assert view_kind(name) == kind


def test_views_come_from_the_record_then_the_index_then_view_of_the_first_image(tmp_path):
    path = write(
        tmp_path,
        record("named", "a.png", "b.png", views=["lateral", "PA"], view="AP"),
        record("indexed", "c.png", "d.png"),
        record("half", "e.png", "f.png", view="AP"),
        record("nothing", "g.png"),
        index="uid,Path,Projection\n1,c.png,Lateral\n1,d.png,Frontal\n1,f.png,Lateral\n\n2,,Lateral\n2,,Frontal\n",
    )
    assert names_and_views(path) == [
        (["a.png", "b.png"], ("lateral", "frontal")),
        (["c.png", "d.png"], ("lateral", "frontal")),
        (["e.png", "f.png"], ("frontal", "lateral")),
        (["g.png"], ("unknown",)),
    ]
    other = tmp_path / "other.csv"
    other.write_text("filename,ViewPosition\nc.png,PA\n")
    assert names_and_views(path, view_index=other)[1] == (["c.png", "d.png"], ("frontal", "unknown"))


def test_one_view_can_be_chosen_and_the_others_are_not_looked_for(tmp_path):
    path = write(
        tmp_path,
        record("two", "a.png", "b.png", views=["lateral", "frontal"]),
        record("no frontal", "c.png", "absent.png", views=["lateral", "unknown"]),
        record("six", *(f"{n}.png" for n in range(6))),
    )
    assert names_and_views(path, views="frontal") == [
        (["b.png"], ("frontal",)),
        (["c.png"], ("lateral",)),
        (["0.png"], ("unknown",)),
    ]
    assert [images for images, _ in names_and_views(path, views="first")] == [["a.png"], ["c.png"], ["0.png"]]


def test_five_views_are_refused_or_skipped(tmp_path):
    path = write(tmp_path, record("four", *(f"{n}.png" for n in range(4))), record("five", *(f"{n}.png" for n in range(5))))
    with pytest.raises(DataError, match=r"train\[1\] \(id 'five'\): expected at most 4 images, got 5 .*--views frontal"):
        read_annotation(path)
    splits = read_annotation(path, skip_broken=True)
    assert [study.id for study in splits.train] == ["four"]
    assert "expected at most 4 images, got 5" in splits.skipped[0]


def test_a_missing_view_is_skipped_alone_and_a_study_with_no_image_left_as_a_whole(tmp_path):
    path = write(
        tmp_path,
        record("both", "a.png", "b.png"),
        record("one", "absent-1.png", "c.png", views=["frontal", "lateral"]),
        record("none", "absent-2.png", "absent-3.png"),
    )
    with pytest.raises(DataError, match=r"2 unusable record(?s:.)*'absent-1.png' is not in the folder"):
        read_annotation(path)
    splits = read_annotation(path, skip_broken=True)
    assert [(study.id, len(study.images), study.views[0]) for study in splits.train] == [
        ("both", 2, "unknown"),
        ("one", 1, "lateral"),
    ]
    assert [text.partition(":")[0] for text in splits.skipped] == ["train[2] (id 'none')"]
    assert [text.partition(":")[0] for text in splits.skipped_images] == ["train[1] (id 'one')"]


def test_an_unreadable_view_is_skipped_alone(tmp_path):
    path = write(tmp_path, record("both", "a.png", "b.png", views=["PA", "LL"]), record("bad", "c.png", "d.png"))
    for name in "acd":
        (tmp_path / "images" / f"{name}.png").write_bytes(b"no picture")
    splits = read_annotation(path)
    left = without_images(splits, check_images(splits))
    assert [(study.id, [image.name for image in study.images], study.views) for study in left] == [
        ("both", ["b.png"], ("lateral",))
    ]
    assert len(left.skipped) == len(left.skipped_images) == 1


@pytest.mark.parametrize(
    ("records", "message"),
    [
        (
            [record("1", "a.png", patient_id="p1"), record("2", "b.png", "a.png", patient_id="p2")],
            r"train\[1\] \(id '2'\): expected images of patient 'p2', but 'a.png' is also listed for 'p1'",
        ),
        (
            [record("1", "a.png", "b.png", patient_id=1), record("2", "a.png", patient_id=2)],
            "expected images of patient '2', but 'a.png' is also listed for '1'",
        ),
        (
            [record("1", "p10/p10000032/s1/a.png", "p10/p10000764/s2/b.png")],
            "expected images of one patient, got those of the patients' folders 10000032, 10000764",
        ),
    ],
)
def test_an_image_of_another_patient_is_refused(tmp_path, records, message):
    with pytest.raises(DataError, match=message):
        read_annotation(write(tmp_path, *records), skip_broken=True)


def test_one_patients_studies_and_studies_of_one_image_may_share_images(tmp_path):
    shared = [record("1", "a.png", "b.png", patient_id="p"), record("2", "b.png", patient_id="p")]
    single = [record("3", "c.png", patient_id="q"), record("4", "c.png", patient_id="r")]
    assert len(read_annotation(write(tmp_path, *shared, *single)).train) == 4


@pytest.mark.parametrize(
    ("views", "message"),
    [
        ("PA", "'views' must be a list of texts such as frontal, lateral, PA, got 'PA'"),
        ([1, 2], "'views' must be a list of texts"),
        (["PA"], "'views' must name the view of each of 2 images, got 1"),
    ],
)
def test_wrong_views_are_refused(tmp_path, views, message):
    with pytest.raises(DataError, match=message):
        read_annotation(write(tmp_path, record("1", "a.png", "b.png", views=views)))


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ("", "images_index.csv: expected a column path or filename or image_path, got: an empty file"),
        ("path,side\na.png,left\n", "expected a column view or projection or viewposition, got: path, side"),
        ("path,view\na.png\n", "line 2: expected 2 fields, got 1"),
        ("path,view\na.png,PA\na.png,LL\n", "image 'a.png': expected one view, got frontal and lateral"),
        ("path,view\na\0.png,PA\n" + '"' + "x" * 200_000, "expected a CSV file of images and their views, got: "),
    ],
)
def test_a_damaged_index_is_refused(tmp_path, index, message):
    with pytest.raises(DataError, match=message):
        read_annotation(write(tmp_path, record("1", "a.png"), index=index))


def test_a_study_has_one_view_an_image():
    paths = (Path("a.png"), Path("b.png"))
    assert Study("1", "Clear.", paths, "train").views == ("unknown", "unknown")
    with pytest.raises(ValueError, match="expected one view an image, got 1 for 2 images"):
        Study("1", "Clear.", paths, "train", views=("frontal",))
    assert main_view(("unknown", "frontal", "frontal")) == 1

"""A phantom data set on disk: the same bytes for any number of workers, never over another's content."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffrgen.errors import DataError
from diffrgen.phantom import GrammarParser, PhantomOptions, write_phantom
from diffrgen.phantom.examples import draw_examples
from diffrgen.phantom.patients.patient import study_counts
from diffrgen.phantom.sheet import caption, write_contact_sheet
from diffrgen.phantom.write import UNFINISHED, split_patients

SMALL = PhantomOptions(studies=24, seed=4, size=64)


def digest(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("phantom") / "small"
    assert write_phantom(folder, SMALL, workers=1, progress=False) == folder / "annotation.json"
    return folder


def test_two_workers_write_the_same_bytes(small: Path, tmp_path: Path) -> None:
    write_phantom(tmp_path / "two", SMALL, workers=2, progress=False)
    assert digest(tmp_path / "two") == digest(small)


def test_annotation_is_whole(small: Path) -> None:
    splits = json.loads((small / "annotation.json").read_text())
    records = [record for split in ("train", "val", "test") for record in splits[split]]
    assert len(records) == 24 == len({record["id"] for record in records})
    assert all(splits[split] for split in ("train", "val", "test"))
    owners = [{record["patient_id"] for record in splits[split]} for split in ("train", "val", "test")]
    assert not (owners[0] & owners[1])
    assert not (owners[0] & owners[2])
    assert not (owners[1] & owners[2])
    labels = GrammarParser()([record["report"] for record in records])
    assert labels.tolist() == [record["labels"] for record in records]
    by_id = {record["id"]: record for record in records}
    for record in records:
        film = np.asarray(Image.open(small / "images" / record["image_path"][0]))
        assert film.shape == (64, 64)
        assert film.dtype == np.uint8
        if record["prior_id"] is not None:
            prior = by_id[record["prior_id"]]
            assert prior["patient_id"] == record["patient_id"]
            assert prior["days"] < record["days"]
        changed = {finding["change"] for finding in record["findings"].values()}
        assert (None in changed or not changed) if record["prior_id"] is None else None not in changed


def test_complete_folder_is_reused(small: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in small.rglob("*")}
    write_phantom(small, SMALL, workers=1, progress=False)
    assert {path: path.stat().st_mtime_ns for path in small.rglob("*")} == before


def test_interrupted_run_is_continued(small: Path, tmp_path: Path) -> None:
    folder = tmp_path / "cut"
    (folder / "images").mkdir(parents=True)
    manifest = (small / "phantom.json").read_bytes()
    (folder / UNFINISHED).write_bytes(manifest)
    kept = next((small / "images").iterdir())
    (folder / "images" / kept.name).write_bytes(kept.read_bytes())
    write_phantom(folder, SMALL, workers=1, progress=False)
    assert digest(folder) == digest(small)


def test_other_content_is_never_overwritten(small: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds a phantom"):
        write_phantom(small, PhantomOptions(studies=25, seed=4, size=64), workers=1, progress=False)
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(DataError, match="other files"):
        write_phantom(tmp_path, SMALL, workers=1, progress=False)
    with pytest.raises(DataError, match="found a file"):
        write_phantom(tmp_path / "thesis.txt", SMALL, workers=1, progress=False)
    (tmp_path / "thesis.txt").unlink()
    (tmp_path / "phantom.json").write_text("{")
    with pytest.raises(DataError, match="could not read"):
        write_phantom(tmp_path, SMALL, workers=1, progress=False)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("studies", 2),
        ("seed", -1),
        ("size", 32),
        ("follow_ups", 0.9),
        ("contrast", 0.0),
        ("noise", float("nan")),
        ("variety", 1.5),
    ],
)
def test_options_are_validated(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=name):
        PhantomOptions(**{name: value})
    with pytest.raises(ValueError, match="one worker"):
        write_phantom(Path("unused"), SMALL, workers=0)


@pytest.mark.parametrize(("studies", "follow_ups"), [(3, 0.35), (10, 0.0), (2000, 0.35), (2000, 0.5)])
def test_counts_and_splits(studies: int, follow_ups: float) -> None:
    counts = study_counts(PhantomOptions(studies=studies, follow_ups=follow_ups))
    assert sum(counts) == studies
    assert set(counts) <= {1, 2, 3}
    if studies == 2000:
        assert 1.0 - len(counts) / studies == pytest.approx(follow_ups, abs=0.03)
        splits = split_patients(counts, 0)
        share = dict.fromkeys(splits, 0.0)
        for count, split in zip(counts, splits, strict=True):
            share[split] += count / studies
        assert share == pytest.approx({"train": 0.8, "val": 0.08, "test": 0.12}, abs=0.01)


def test_examples_are_the_first_test_patients_of_the_data_set(small: Path, tmp_path: Path) -> None:
    records = json.loads((small / "annotation.json").read_text())["test"]
    patients = len({record["patient_id"] for record in records})
    drawn = draw_examples(tmp_path, SMALL, patients)
    assert sorted((record for own in drawn for record in own), key=lambda r: r["id"]) == sorted(
        records, key=lambda r: r["id"]
    )
    for record in records:
        name = record["image_path"][0]
        assert (tmp_path / name).read_bytes() == (small / "images" / name).read_bytes()
    (few,) = draw_examples(tmp_path, SMALL, 1)
    assert few in drawn


def test_every_second_example_has_an_earlier_study(tmp_path: Path) -> None:
    drawn = draw_examples(tmp_path, PhantomOptions(studies=400, size=64), 4)
    assert [len(own) > 1 for own in drawn] == [False, True, False, True]


def test_contact_sheet_is_a_picture(tmp_path: Path) -> None:
    path = write_contact_sheet(tmp_path / "sheet.png", PhantomOptions(studies=60, size=64), rows=1, columns=3)
    picture = np.asarray(Image.open(path).convert("L"))
    assert picture.shape[1] > 2 * picture.shape[0] * 0.9
    assert picture.std() > 30


def test_caption_of_a_normal_study_says_so() -> None:
    from diffrgen.phantom.patients.patient import sample_patient

    options = PhantomOptions(seed=0)
    normal = next(
        patient.studies[0]
        for patient in (sample_patient(options, index, 1) for index in range(200))
        if not patient.studies[0].findings and not patient.studies[0].devices
    )
    assert caption(normal) == "no finding"

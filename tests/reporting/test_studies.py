"""Studies out of files, folders and DICOM tags, none of which is ever quoted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffrgen.errors import DataError
from diffrgen.images.dicom_study import dicom_study
from diffrgen.reporting.study_files import collect_studies
from diffrgen.reporting.study_images import StudyImages

pytest.importorskip("pydicom", reason="DICOM needs the extra diffrgen[dicom]")
from dicom_files import PATIENT, write_dicom

UIDS = [f"1.2.826.0.1.3680043.8.498.{number}" for number in (1, 2)]


def dicom(path: Path, *, study: int = 0, patient: str = PATIENT, **tags: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.arange(64, dtype=np.uint16).reshape(8, 8)
    return write_dicom(path, values, StudyInstanceUID=UIDS[study], PatientID=patient, **tags)


def png(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(path)
    return path


@pytest.mark.parametrize(("view", "kind"), [("PA", "frontal"), ("LL", "lateral"), ("LAO", "unknown"), (None, "unknown")])
def test_the_view_is_that_of_the_tags(tmp_path, view, kind):
    file = dicom(tmp_path / "a.dcm", **({} if view is None else {"ViewPosition": view}))
    assert dicom_study(file).view == kind
    assert StudyImages((file, png(tmp_path / "b.png"))).views == (kind, "unknown")
    assert StudyImages.of(str(file)).views == (kind,)
    assert StudyImages((file,), ("lateral",)).views == ("lateral",)


def test_other_files_and_damaged_ones_have_no_tags(tmp_path):
    whole = dicom(tmp_path / "a.dcm", ViewPosition="PA")
    cut = tmp_path / "cut.dcm"
    cut.write_bytes(whole.read_bytes()[:140])
    assert dicom_study(png(tmp_path / "b.png")) is None
    assert dicom_study(tmp_path / "absent.dcm") is None
    assert (dicom_study(cut) is None) or dicom_study(cut).study == ""


def test_a_folder_is_a_study_and_dicom_files_in_it_are_grouped(tmp_path):
    root = tmp_path / "root"
    first = [dicom(root / "a" / f"{n}.dcm", study=n % 2) for n in range(4)]
    pictures = [png(root / "a" / f"x{n}.png") for n in range(2)]
    below = [png(root / "b" / "c" / f"{n}.png") for n in range(3)]
    found = collect_studies([root])
    assert [list(study.images) for study in found.studies] == [first[::2], first[1::2], pictures, below]
    assert found.faults == {}
    found = collect_studies([root / "b", pictures[0], first[0]])
    assert [list(study.images) for study in found.studies] == [[pictures[0], first[0]], below]


def test_one_study_too_many_does_not_stop_the_others(tmp_path):
    five = [png(tmp_path / "five" / f"{n}.png") for n in range(5)]
    png(tmp_path / "one" / "x.png")
    found = collect_studies([tmp_path, tmp_path / "absent"])
    assert [study.name for study in found.studies] == [str(tmp_path / "one" / "x.png")]
    assert list(found.faults) == [tmp_path / "absent", five[0]]
    assert "needed 1 to 4 images of a study, got 5" in str(found.faults[five[0]])


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ({"patient": "OTHER^NAME"}, "needed images of one patient, got DICOM files of several: "),
        ({"study": 1}, "needed images of one study, got DICOM files of several: "),
    ],
)
def test_a_view_of_another_patient_or_study_is_refused_and_no_tag_quoted(tmp_path, tags, message):
    files = dicom(tmp_path / "a.dcm"), dicom(tmp_path / "b.dcm", **tags)
    found = collect_studies(files)
    assert found.studies == []
    with pytest.raises(DataError, match=message) as caught:
        StudyImages(files)
    for told in (str(caught.value), repr(dicom_study(files[1])), str(found.faults[files[0]])):
        assert not any(secret in told for secret in (PATIENT, "OTHER", *UIDS))
    assert "a.dcm" in str(caught.value)


def test_a_file_without_identifiers_may_join_any_study(tmp_path):
    plain = dicom(tmp_path / "plain.dcm", patient="")
    assert len(StudyImages((dicom(tmp_path / "a.dcm"), plain)).images) == 2


def test_a_study_needs_an_image():
    with pytest.raises(DataError, match="needed 1 to 4 images of a study, got 0: none"):
        StudyImages(())
    with pytest.raises(ValueError, match="expected one view an image, got 2 for 1 images"):
        StudyImages(("a.png",), ("frontal", "lateral"))

"""The phantom's films: each finding is where its state says, and grows with its grade."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from diffrgen.phantom import PhantomOptions
from diffrgen.phantom.drawing.chest import heart_borders, open_scene
from diffrgen.phantom.drawing.devices import DEVICE_KINDS, tube_tip
from diffrgen.phantom.drawing.pleura import fluid_level, pneumothorax_space
from diffrgen.phantom.drawing.render import draw_scene, draw_study
from diffrgen.phantom.drawing.shape import shape_of
from diffrgen.phantom.patients.patient import Patient, sample_patient
from diffrgen.phantom.patients.states import DISEASES, SIDED, ZONED, Device, FindingState, Grade, StudyState

OPTIONS = PhantomOptions(size=128)
GRADES = (Grade.SUBTLE, Grade.MILD, Grade.MODERATE, Grade.SEVERE)


@pytest.fixture(scope="module")
def patient() -> Patient:
    return sample_patient(OPTIONS, 7, 1)


def with_finding(patient: Patient, name: str, grade: Grade, side: str = "right", zone: str = "mid") -> StudyState:
    state = FindingState(name, grade, side if name in SIDED else None, zone if name in ZONED else None)  # type: ignore[arg-type]
    return replace(bare(patient), findings={name: state})


def bare(patient: Patient) -> StudyState:
    return replace(patient.studies[0], findings={}, devices=())


def difference(patient: Patient, study: StudyState) -> np.ndarray:
    one = draw_study(patient.anatomy, study, OPTIONS).astype(float)
    return np.abs(one - draw_study(patient.anatomy, bare(patient), OPTIONS))


@pytest.mark.parametrize("name", DISEASES)
@pytest.mark.parametrize("side", ["left", "right"])
def test_finding_changes_the_film_on_its_side(patient: Patient, name: str, side: str) -> None:
    change = difference(patient, with_finding(patient, name, Grade.MODERATE, side))
    assert np.sort(change.ravel())[-160:].mean() > 15.0
    if name in SIDED:
        # The patient's left is on the right of the film; a midline of eight pixels is left out.
        halves = {"right": change[:, :60].sum(), "left": change[:, 68:].sum()}
        other = "left" if side == "right" else "right"
        # Volume loss also pulls the mediastinum, whose both borders move.
        assert halves[side] > (1.5 if name == "atelectasis" else 3.0) * halves[other]


@pytest.mark.parametrize("name", sorted(ZONED))
def test_zone_orders_height(patient: Patient, name: str) -> None:
    zones = ("upper", "mid", "lower") if name != "atelectasis" else ("mid", "lower")
    heights = []
    for zone in zones:
        change = difference(patient, with_finding(patient, name, Grade.MILD, "right", zone))
        weight = np.where(change > 6.0, change, 0.0)
        heights.append(float((weight.sum(1) * np.arange(128)).sum() / weight.sum()))
    # The diaphragm, raised by volume loss in every zone, draws the mean height of atelectasis together.
    assert heights == sorted(heights)
    assert heights[-1] - heights[0] > (3.0 if name == "atelectasis" else 8.0)


@pytest.mark.parametrize("name", DISEASES)
def test_change_of_the_film_grows_with_grade(patient: Patient, name: str) -> None:
    sums = [difference(patient, with_finding(patient, name, grade)).sum() for grade in GRADES]
    assert sums == sorted(sums)
    assert sums[3] > 1.5 * sums[1]


def test_heart_width_follows_the_ratio(patient: Patient) -> None:
    ratios = []
    for grade in (Grade.ABSENT, *GRADES):
        study = with_finding(patient, "cardiomegaly", grade) if grade else bare(patient)
        scene = open_scene(patient.anatomy, study, size=512, contrast=1.0)
        reach = (scene.heart > 0.5) & (scene.y < scene.shape.dome[1])
        columns = np.where(reach.any(0))[0]
        width = (columns[-1] - columns[0] + 1) * 2.0 / 512 / scene.acquisition.zoom
        ratios.append(width / (2.0 * scene.shape.width))
        right, left = heart_borders(np.linspace(-1.0, 1.0, 2001), scene.shape)
        assert right.max() + left.max() == pytest.approx(2.0 * scene.shape.width * scene.shape.heart_ratio, rel=1e-3)
    assert ratios == sorted(ratios)
    assert ratios[0] < 0.5 < ratios[2]
    assert ratios[-1] > 0.6


def test_normal_hearts_stay_below_enlarged_ones() -> None:
    normal, enlarged = [], []
    for index in range(60):
        patient = sample_patient(OPTIONS, index, 1)
        shot = replace(patient.studies[0].acquisition, inspiration=0.0)
        for ratios, study in (
            (normal, bare(patient)),
            (enlarged, with_finding(patient, "cardiomegaly", Grade.MILD)),
        ):
            ratios.append(shape_of(patient.anatomy, replace(study, acquisition=shot)).heart_ratio)
    assert max(normal) < 0.48
    assert min(enlarged) > 0.52


def test_effusion_level_rises(patient: Patient) -> None:
    levels = []
    for grade in GRADES:
        study = with_finding(patient, "pleural effusion", grade)
        scene = open_scene(patient.anatomy, study, size=128, contrast=1.0)
        levels.append(float(fluid_level(scene, study.findings["pleural effusion"], -1)[:, 20].mean()))
    assert levels == sorted(levels, reverse=True)


def test_free_air_holds_no_vessels(patient: Patient) -> None:
    study = with_finding(patient, "pneumothorax", Grade.SEVERE)
    scene = draw_scene(patient.anatomy, study, OPTIONS)
    space, _ = pneumothorax_space(scene, study.findings["pneumothorax"], -1)
    assert space.sum() > 300
    assert scene.tissue[space > 0.99].max() < 0.06


def test_widening_is_above_the_heart(patient: Patient) -> None:
    change = difference(patient, with_finding(patient, "enlarged cardiomediastinum", Grade.SEVERE))
    assert change[24:64].sum() > 2.0 * change[64:].sum()


@pytest.mark.parametrize("kind", DEVICE_KINDS)
def test_device_is_bright(patient: Patient, kind: str) -> None:
    tips = {
        "endotracheal tube": "4",
        "nasogastric tube": "stomach",
        "central line": "jugular svc",
        "pacemaker": "dual",
    }
    device = Device(kind, side="right", tip=tips.get(kind, ""))
    study = replace(bare(patient), devices=(device,))
    assert np.sort(difference(patient, study).ravel())[-40:].mean() > 12.0
    removed = replace(bare(patient), devices=(replace(device, change="resolved"),))
    assert difference(patient, removed).max() == 0.0


def test_tube_tip_is_in_centimetres() -> None:
    assert tube_tip("2") - tube_tip("7") == pytest.approx(5 * 0.052)


def test_contrast_makes_findings_fainter(patient: Patient) -> None:
    study = with_finding(patient, "consolidation", Grade.MODERATE)
    faint = draw_study(patient.anatomy, study, replace(OPTIONS, contrast=0.4)).astype(float)
    plain = draw_study(patient.anatomy, bare(patient), replace(OPTIONS, contrast=0.4))
    assert np.abs(faint - plain).sum() < 0.6 * difference(patient, study).sum()


def test_films_are_films(patient: Patient) -> None:
    film = draw_study(patient.anatomy, patient.studies[0], PhantomOptions(size=256))
    assert film.shape == (256, 256)
    assert film.dtype == np.uint8
    assert film.std() > 40
    assert np.mean(film > 252) < 0.05

"""The outline of one study's chest: the patient's proportions, moved by inspiration and findings."""

from __future__ import annotations

from dataclasses import dataclass

from diffrgen.phantom.patients.anatomy import Anatomy
from diffrgen.phantom.patients.states import Grade, StudyState

# Width of the heart over the width of the chest; a normal heart has the patient's own ratio, below 0.48.
HEART_RATIO = {Grade.SUBTLE: 0.512, Grade.MILD: 0.555, Grade.MODERATE: 0.62, Grade.SEVERE: 0.695}
# Widening of the upper mediastinum, in half widths of the image.
WIDENING = {
    Grade.ABSENT: 0.0,
    Grade.SUBTLE: 0.035,
    Grade.MILD: 0.075,
    Grade.MODERATE: 0.115,
    Grade.SEVERE: 0.165,
}
# How far volume loss raises the diaphragm and pulls the mediastinum.
VOLUME_LOSS = {
    Grade.ABSENT: 0.0,
    Grade.SUBTLE: 0.0,
    Grade.MILD: 0.025,
    Grade.MODERATE: 0.075,
    Grade.SEVERE: 0.14,
}


@dataclass(frozen=True, slots=True)
class Shape:
    """Borders of one film in half sides; `dome` is the top of the diaphragm by side (-1 right, +1 left)."""

    width: float
    top: float
    base: float
    dome: dict[int, float]
    heart_ratio: float
    heart_left_share: float
    mediastinum: float
    widening: float
    pull: float

    @property
    def heart_top(self) -> float:
        """Return where the heart begins, below the hila."""
        return -0.13 - 0.55 * max(0.0, self.heart_ratio - 0.46)

    @property
    def heart_bottom(self) -> float:
        """Return where the heart ends, on the diaphragm."""
        return max(self.dome.values()) + 0.07


def shape_of(anatomy: Anatomy, study: StudyState, *, contrast: float = 1.0) -> Shape:
    """Return the outline of `study`; `contrast` scales how far findings move the borders."""
    lift = -study.acquisition.inspiration * 1.1
    top_of_dome = anatomy.lung_base - anatomy.dome_rise - lift
    loss = {-1: 0.0, 1: 0.0}
    collapse = study.findings.get("atelectasis")
    if collapse:
        for side in collapse.sides:
            loss[side] = VOLUME_LOSS[collapse.grade] * contrast
    air = study.findings.get("pneumothorax")
    push = 0.0
    if air and air.grade == Grade.SEVERE and len(air.sides) == 1:
        push = -0.04 * air.sides[0] * contrast
    return Shape(
        width=anatomy.lung_width,
        top=anatomy.lung_top,
        base=anatomy.lung_base - 0.6 * lift,
        dome={-1: top_of_dome - 0.035 - loss[-1], 1: top_of_dome - loss[1]},
        heart_ratio=_heart_ratio(anatomy, study, contrast) + max(0.0, lift - 0.05) * 0.15,
        heart_left_share=anatomy.heart_left_share,
        mediastinum=anatomy.mediastinum,
        widening=WIDENING[study.grade("enlarged cardiomediastinum")] * contrast,
        pull=(loss[1] - loss[-1]) * 0.35 + push,
    )


def _heart_ratio(anatomy: Anatomy, study: StudyState, contrast: float) -> float:
    grade = study.grade("cardiomegaly")
    if grade == Grade.ABSENT:
        return anatomy.heart_ratio
    # A third of the patient's own deviation stays, so that grades do not touch.
    target = HEART_RATIO[grade] + (anatomy.heart_ratio - 0.4425) * 0.35
    return anatomy.heart_ratio + (target - anatomy.heart_ratio) * contrast

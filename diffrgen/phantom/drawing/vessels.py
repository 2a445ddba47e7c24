"""Draw the lungs' own markings: hila, branching vessels and fine texture."""

from __future__ import annotations

import numpy as np

from diffrgen.phantom.drawing.fields import blob, smooth_noise
from diffrgen.phantom.drawing.scene import SIDES, Scene
from diffrgen.phantom.drawing.strokes import Strokes
from diffrgen.phantom.patients.states import Grade, StudyState

VESSEL_STREAM = 10
ROOTS = 8
FORKS = np.array([-0.36, 0.30])
BRIGHTNESS = (0.95, 0.75, 0.52, 0.36, 0.26)
# How much wider vessels of the upper lung are in edema (cephalisation).
CEPHALISED = {
    Grade.ABSENT: 1.0,
    Grade.SUBTLE: 1.25,
    Grade.MILD: 1.55,
    Grade.MODERATE: 1.85,
    Grade.SEVERE: 2.1,
}


def draw_vessels(scene: Scene, study: StudyState, *, noise: float) -> None:
    """Add vessels and texture where `scene.tissue` has lung."""
    rng = scene.rng(VESSEL_STREAM)
    strokes = Strokes(scene)
    for side in SIDES:
        _draw_tree(strokes, side, CEPHALISED[study.grade("edema")], rng)
    lungs = np.maximum(scene.lungs[-1], scene.lungs[1]) * scene.tissue
    fine = smooth_noise(rng, scene.size, 90) + 0.8 * smooth_noise(rng, scene.size, 45)
    scene.density += (0.22 * strokes.read() + 0.016 * noise * fine) * lungs
    for side in SIDES:
        centre = (scene.midline(-0.1) + side * 0.15, -0.06 + (0.02 if side < 0 else -0.02))
        scene.density += 0.16 * blob(scene.x, scene.y, centre, (0.04, 0.10)) * scene.lungs[side]


def _draw_tree(strokes: Strokes, side: int, upper: float, rng: np.random.Generator) -> None:
    """Draw one lung's vessels level by level; each forks in two, thinner and shorter."""
    angles = np.linspace(-1.25, 1.4, ROOTS) + rng.normal(0.0, 0.12, ROOTS)
    # Roots leave along the hilum, upper branches higher, so that they do not meet in one point.
    across = strokes.scene.midline(-0.1) + side * (0.14 + rng.uniform(-0.03, 0.02, ROOTS))
    starts = np.stack([across, -0.06 + 0.10 * angles], axis=1)  # (vessels, 2)
    lengths = np.full(ROOTS, 0.18)
    widths = np.where(angles < -0.2, 2.8 * upper, 2.8)
    for brightness in BRIGHTNESS:
        bends = angles + rng.normal(0.0, 0.22, len(angles))
        middles = starts + 0.5 * _heading(angles, lengths, side)
        ends = middles + 0.5 * _heading(bends, lengths, side)
        strokes.lines(np.stack([starts, middles, ends], axis=1), widths=widths, value=brightness)
        starts = np.repeat(ends, 2, axis=0)
        angles = (bends[:, None] + FORKS).ravel() + rng.normal(0.0, 0.2, 2 * len(bends))
        lengths = np.repeat(lengths, 2) * rng.uniform(0.72, 0.92, 2 * len(lengths))
        widths = 0.66 * np.repeat(widths, 2)


def _heading(angles: np.ndarray, lengths: np.ndarray, side: int) -> np.ndarray:
    return np.stack([side * lengths * np.cos(angles), lengths * np.sin(angles)], axis=1)  # (vessels, 2)

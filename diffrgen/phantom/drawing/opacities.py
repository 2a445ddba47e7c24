"""Draw what fills the lung: edema, consolidation, pneumonia, hazy opacity, lesions and atelectasis."""

from __future__ import annotations

import numpy as np

from diffrgen.phantom.drawing.fields import Point, blob, smooth_noise, step
from diffrgen.phantom.drawing.scene import SIDES, Scene
from diffrgen.phantom.drawing.strokes import Strokes
from diffrgen.phantom.patients.states import FindingState, Grade

STREAMS = {
    "edema": 50,
    "consolidation": 51,
    "pneumonia": 52,
    "lung opacity": 53,
    "lung lesion": 54,
    "atelectasis": 55,
}
ZONE_HEIGHT = {"upper": 0.20, "mid": 0.50, "lower": 0.80, None: 0.5}
EDEMA = {Grade.SUBTLE: 0.10, Grade.MILD: 0.22, Grade.MODERATE: 0.38, Grade.SEVERE: 0.58}
LOBE = {Grade.SUBTLE: 0.09, Grade.MILD: 0.14, Grade.MODERATE: 0.19, Grade.SEVERE: 0.26}
PATCHES = {Grade.SUBTLE: 3, Grade.MILD: 5, Grade.MODERATE: 9, Grade.SEVERE: 15}
PATCH_SPREAD = {Grade.SUBTLE: 0.07, Grade.MILD: 0.08, Grade.MODERATE: 0.115, Grade.SEVERE: 0.16}
HAZE = {Grade.SUBTLE: 0.17, Grade.MILD: 0.29, Grade.MODERATE: 0.40, Grade.SEVERE: 0.52}
HAZE_RADIUS = {Grade.SUBTLE: 0.13, Grade.MILD: 0.15, Grade.MODERATE: 0.19, Grade.SEVERE: 0.24}
LESION = {Grade.SUBTLE: 0.036, Grade.MILD: 0.052, Grade.MODERATE: 0.085, Grade.SEVERE: 0.14}
FAINT = {Grade.SUBTLE: 0.45, Grade.MILD: 1.0, Grade.MODERATE: 1.0, Grade.SEVERE: 1.0}


def place(scene: Scene, state: FindingState, side: int, rng: np.random.Generator) -> Point:
    """Return where on `side` a finding of this zone sits, the same in each of the patient's images."""
    t = ZONE_HEIGHT[state.zone] + rng.uniform(-0.04, 0.04)
    foot = scene.shape.dome[side] + 0.06
    y = scene.shape.top + 0.06 + t * (foot - scene.shape.top - 0.06)
    outer = scene.width_at(y)
    inner = max(0.16, float(np.interp(y, scene.y[:, 0], scene.medial[:, 0])))
    return side * (inner + rng.uniform(0.45, 0.62) * (outer - inner)), float(y)


def draw_edema(scene: Scene, state: FindingState, amount: float) -> None:
    """Add a bat-wing haze about the hila, Kerley lines at the bases and nodular filling when severe."""
    rng = scene.rng(STREAMS["edema"])
    level = EDEMA[state.grade] * amount
    mottle = 1.0 + 0.22 * smooth_noise(rng, scene.size, 26)
    strokes = Strokes(scene)
    for side in SIDES:
        wing = blob(scene.x, scene.y, (side * 0.28, 0.05), (0.18, 0.30))
        base = 0.35 * blob(scene.x, scene.y, (side * 0.42, 0.36), (0.25, 0.2))
        scene.density += level * (wing + base) * mottle * scene.lungs[side]
        for row in range(9):
            y = scene.shape.base - 0.36 + 0.036 * row + rng.uniform(-0.006, 0.006)
            edge = scene.width_at(y) - 0.015
            reach = rng.uniform(0.07, 0.12)
            strokes.line([(side * edge, y), (side * (edge - reach), y + 0.008)], width=1.3)
    lungs = np.maximum(scene.lungs[-1], scene.lungs[1])
    scene.density += min(0.34, 0.14 + 0.5 * level) * FAINT[state.grade] * amount * strokes.read() * lungs


def draw_consolidation(scene: Scene, state: FindingState, amount: float) -> None:
    """Add a dense lobar region with a sharp lower border and dark air bronchograms."""
    rng = scene.rng(STREAMS["consolidation"])
    for side in SIDES:
        centre = place(scene, state, side, rng)
        wobble = 0.10 * smooth_noise(rng, scene.size, 9) + 0.10 * smooth_noise(rng, scene.size, 22)
        seed = int(rng.integers(2**32))
        if side not in state.sides:
            continue
        reach = LOBE[state.grade]
        radius = np.hypot((scene.x - centre[0]) / (1.25 * reach), (scene.y - centre[1]) / reach) + wobble
        fissure = centre[1] + 0.75 * reach - scene.y - 0.1 * side * (scene.x - centre[0])
        region = step(1.15 - radius, 0.6) * step(fissure, 0.04)
        bronchi = _bronchogram(scene, centre, reach, side, seed)
        dense = 0.62 * FAINT[state.grade] * amount
        scene.density += dense * region * (1.0 - 0.42 * bronchi) * scene.lungs[side]


def _bronchogram(scene: Scene, centre: Point, reach: float, side: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    strokes = Strokes(scene)
    root = (centre[0] - side * 0.9 * reach, centre[1] - 0.1 * reach)
    for angle in (-0.55, -0.15, 0.25, 0.6):
        turn = angle + rng.normal(0.0, 0.08)
        fork = (root[0] + side * reach * np.cos(turn), root[1] + reach * np.sin(turn))
        tip = (fork[0] + side * 0.8 * reach * np.cos(turn * 1.6), fork[1] + 0.8 * reach * np.sin(turn * 1.6))
        strokes.line([root, fork, tip], width=2.2)
    return strokes.read()


def draw_pneumonia(scene: Scene, state: FindingState, amount: float) -> None:
    """Add a cluster of patchy, mid-dense spots."""
    rng = scene.rng(STREAMS["pneumonia"])
    for side in SIDES:
        centre = place(scene, state, side, rng)
        angles = rng.uniform(0.0, 2.0 * np.pi, 15)
        radii = np.sqrt(rng.uniform(0.02, 1.0, 15))
        sizes = rng.uniform(0.027, 0.045, 15)
        if side not in state.sides:
            continue
        spread = PATCH_SPREAD[state.grade]
        patch = np.zeros_like(scene.density)
        for angle, radius, spot in zip(angles, radii, sizes[: PATCHES[state.grade]], strict=False):
            x = centre[0] + 1.15 * spread * radius * np.cos(angle)
            y = centre[1] + spread * radius * np.sin(angle)
            patch += blob(scene.x, scene.y, (x, y), (spot, 0.85 * spot))
        scene.density += 0.54 * FAINT[state.grade] * amount * np.minimum(patch, 1.1) * scene.lungs[side]


def draw_haze(scene: Scene, state: FindingState, amount: float) -> None:
    """Add one broad, ill-defined, ground-glass haze."""
    rng = scene.rng(STREAMS["lung opacity"])
    for side in SIDES:
        centre = place(scene, state, side, rng)
        stretch = rng.uniform(1.0, 1.3)
        if side not in state.sides:
            continue
        reach = HAZE_RADIUS[state.grade]
        spread = blob(scene.x, scene.y, centre, (stretch * reach, reach))
        scene.density += HAZE[state.grade] * amount * spread * scene.lungs[side]


def draw_lesion(scene: Scene, state: FindingState, amount: float) -> None:
    """Add one round, sharply bounded nodule, a mass when severe."""
    rng = scene.rng(STREAMS["lung lesion"])
    for side in SIDES:
        centre = place(scene, state, side, rng)
        lobes = rng.uniform(0.0, 2.0 * np.pi, 2).tolist()
        if side not in state.sides:
            continue
        size = LESION[state.grade]
        dx, dy = scene.x - centre[0], scene.y - centre[1]
        angle = np.arctan2(dy, dx)
        rim = 1.0 + 0.06 * np.cos(2.0 * angle + lobes[0]) + 0.03 * np.cos(3.0 * angle + lobes[1])
        ball = step(rim * size - np.hypot(dx, dy), 0.03)
        dense = (0.52 + 1.0 * size) * FAINT[state.grade] * amount
        scene.density += dense * ball * (0.35 + 0.65 * np.maximum(scene.lungs[side], scene.heart))


def draw_atelectasis(scene: Scene, state: FindingState, amount: float) -> None:
    """Add plate-like bands; with moderate volume loss basal crowding, when severe a collapsed wedge."""
    rng = scene.rng(STREAMS["atelectasis"])
    for side in SIDES:
        centre = place(scene, state, side, rng)
        strokes = Strokes(scene)
        slopes = rng.normal(0.0, 0.05, 4)
        lengths = rng.uniform(0.13, 0.19, 4)
        if side not in state.sides:
            continue
        count = {Grade.SUBTLE: 1, Grade.MILD: 2, Grade.MODERATE: 3, Grade.SEVERE: 4}[state.grade]
        foot = (scene.shape.dome[side] - 0.05) if state.zone == "lower" else centre[1]
        for plate in range(count):
            y = foot - 0.062 * plate
            x = side * (abs(centre[0]) + (0.03 if plate % 2 else -0.03))
            tilt = side * (0.18 + slopes[plate])
            length = lengths[plate]
            ends = [(x - length, y + tilt * length), (x, y - 0.012), (x + length, y - tilt * length)]
            strokes.line(ends, width=3.0 + plate % 2)
        plates = 0.42 * FAINT[state.grade] * amount * strokes.read()
        if state.grade == Grade.SEVERE:
            plates = plates + amount * _wedge(scene, side, foot)
        scene.density += plates * (0.25 + 0.75 * scene.lungs[side])


def _wedge(scene: Scene, side: int, foot: float) -> np.ndarray:
    outward = side * (scene.x - scene.spine)
    border = 0.12 + 0.62 * np.clip(scene.y - foot + 0.30, 0.0, 1.0)
    inside = step(border - outward, 0.04) * step(outward, 0.05)
    return 0.50 * inside * (step(scene.y - foot + 0.30, 0.08) * step(foot + 0.22 - scene.y, 0.05))

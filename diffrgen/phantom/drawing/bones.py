"""Draw the bones: ribs as two periodic families of curves, fractures, spine, clavicles, shoulder blades."""

from __future__ import annotations

import numpy as np

from diffrgen.phantom.drawing.fields import Point, step
from diffrgen.phantom.drawing.scene import SIDES, Scene
from diffrgen.phantom.drawing.strokes import Strokes
from diffrgen.phantom.patients.states import FindingState, Grade

FRACTURE_STREAM = 40
# Vertical step between the two ends, and the gap, by grade.
FRACTURE_STEP = {Grade.SUBTLE: 0.014, Grade.MILD: 0.038, Grade.MODERATE: 0.06, Grade.SEVERE: 0.085}
FRACTURE_COUNT = {Grade.SUBTLE: 1, Grade.MILD: 1, Grade.MODERATE: 2, Grade.SEVERE: 3}
FRACTURE_ZONE = {"upper": 2, "mid": 4, "lower": 6, None: 4}


def draw_ribs(scene: Scene, fracture: FindingState | None = None, *, contrast: float = 1.0) -> None:
    """Add ribs; `fracture` breaks some of the back ribs with a step, a gap and callus."""
    u = np.abs(scene.x) / np.maximum(scene.half_width, 0.12)
    inside = step(1.06 - u, 0.08) * step(u - 0.16, 0.1) * step(scene.y - scene.shape.top + 0.03, 0.06)
    index, slope = _back_phase(scene, u)
    gap = np.zeros_like(u)
    if fracture is not None and fracture.grade > Grade.ABSENT:
        index, gap = _break(scene, fracture, index, u, contrast)
    back = _band(index, 0.17) * (1.0 - gap)
    fade = step(0.75 - scene.y, 0.4) * (0.75 + 0.25 * np.clip(u, 0.0, 1.0))
    amount = 0.20 * scene.anatomy.rib_contrast
    scene.density += amount * back * inside * fade * (index > 0.5)
    spacing = scene.anatomy.rib_spacing
    fall = slope + 0.40 * np.clip(1.0 - u, 0.0, 1.0) ** 1.15
    front = (scene.y - scene.shape.top - fall) / spacing
    front_mask = inside * step(u - 0.48, 0.14) * step(0.60 - scene.y, 0.3) * (front > 0.5)
    scene.density += 0.5 * amount * _band(front, 0.21) * front_mask


def _back_phase(scene: Scene, u: np.ndarray) -> tuple[np.ndarray, float]:
    bow = scene.anatomy.rib_slope * u * u - 0.07 * np.sin(np.pi * np.clip(u, 0.0, 1.0))
    return (scene.y - scene.shape.top - bow) / scene.anatomy.rib_spacing, scene.anatomy.rib_slope


def _band(phase: np.ndarray, half: float) -> np.ndarray:
    away = np.abs(phase - np.round(phase))
    body = step(half - away, 0.10)
    cortex = np.exp(-0.5 * ((away - 0.85 * half) / 0.045) ** 2)
    return 0.62 * body + 0.38 * cortex


def fracture_sites(scene: Scene, fracture: FindingState) -> list[tuple[int, int, float]]:
    """Return (side, rib, position along it as a share of the half width) of each break."""
    rng = scene.rng(FRACTURE_STREAM)
    first = FRACTURE_ZONE[fracture.zone]
    sites = []
    for side in fracture.sides:
        along = float(rng.uniform(0.55, 0.72))
        for extra in range(FRACTURE_COUNT[fracture.grade]):
            sites.append((side, first + extra, along + 0.03 * extra))
    return sites


def _break(
    scene: Scene, fracture: FindingState, phase: np.ndarray, u: np.ndarray, contrast: float
) -> tuple[np.ndarray, np.ndarray]:
    moved = phase.copy()
    gap = np.zeros_like(u)
    jump = FRACTURE_STEP[fracture.grade] * contrast / scene.anatomy.rib_spacing
    for side, rib, along in fracture_sites(scene, fracture):
        own = (np.abs(phase - rib) < 0.5) & (side * scene.x > 0)
        outer = step(u - along, 0.03)
        moved = np.where(own, moved - jump * outer * np.exp(-np.clip(u - along, 0.0, 1.0) / 0.35), moved)
        opening = np.exp(-0.5 * ((u - along) / (0.016 + 0.25 * jump * scene.anatomy.rib_spacing)) ** 2)
        gap = np.maximum(gap, np.where(own, opening, 0.0))
    return moved, gap


def draw_fracture(scene: Scene, fracture: FindingState, amount: float) -> None:
    """Add the two ends of each broken rib, thickened by callus and shifted against each other."""
    jump = FRACTURE_STEP[fracture.grade]
    strokes = Strokes(scene)
    for side, rib, along in fracture_sites(scene, fracture):
        inner = [_on_rib(scene, side, rib, along - back, 0.0) for back in (0.17, 0.09, 0.015)]
        outer = [_on_rib(scene, side, rib, along + ahead, jump * (1.0 - 2.0 * ahead)) for ahead in (0.015, 0.09, 0.19)]
        for ends in (inner, outer):
            strokes.line(ends, width=4.6, value=0.45)
        strokes.line(inner[1:], width=5.6, value=0.95)
        strokes.line(outer[:2], width=5.6, value=0.95)
    faint = 0.5 if fracture.grade == Grade.SUBTLE else 1.0
    scene.density += 0.50 * faint * amount * strokes.read()


def _on_rib(scene: Scene, side: int, rib: int, along: float, drop: float) -> Point:
    bow = scene.anatomy.rib_slope * along**2 - 0.07 * np.sin(np.pi * along)
    y = scene.shape.top + rib * scene.anatomy.rib_spacing + bow
    return side * along * scene.width_at(y), float(y + drop)


def draw_spine(scene: Scene) -> None:
    """Add vertebral bodies with discs and pedicles; degenerative spines have bright plates and spurs."""
    middle = scene.spine - scene.acquisition.rotation
    columns = scene.columns(float(middle.min()) - 0.15, float(middle.max()) + 0.15)
    x = scene.x[:, columns] - middle
    level = scene.y / 0.088
    away = np.abs(level - np.round(level))
    disc = np.exp(-0.5 * ((away - 0.5) / 0.09) ** 2)
    added = (0.20 - 0.10 * disc) * step(0.088 - np.abs(x), 0.03)
    for side in SIDES:
        pedicle = np.exp(-0.5 * (((x - side * 0.052) / 0.014) ** 2 + (away / 0.17) ** 2))
        added += 0.07 * pedicle
    if scene.anatomy.degenerative_spine:
        plate = np.exp(-0.5 * ((away - 0.40) / 0.06) ** 2) * step(0.12 - np.abs(x), 0.03)
        added += 0.24 * plate * step(scene.y + 0.1, 0.3)
    scene.density[:, columns] += added


def draw_shoulders(scene: Scene) -> None:
    """Add clavicles, shoulder blades and the heads of the upper arm bones."""
    rows = scene.rows(-1.1, 0.15)
    for side in SIDES:
        outward, y = side * scene.x[rows], scene.y[rows]
        added = 0.24 * _clavicle(outward, y, scene.shape.top, 0.07 + side * scene.acquisition.rotation)
        edge = (0.62 if scene.acquisition.view == "AP" else 0.70) + 0.18 * (y + 0.35)
        height = step(y + 0.62, 0.15) * step(0.02 - y, 0.2)
        rim = np.exp(-0.5 * ((outward - edge - 0.012) / 0.012) ** 2)
        added += (0.07 * step(outward - edge, 0.02) + 0.06 * rim) * height
        head = np.hypot((outward - 0.99) / 0.12, (y + 0.64) / 0.13)
        added += 0.13 * step(1.0 - head, 0.25)
        scene.density[rows] += added


def _clavicle(outward: np.ndarray, y: np.ndarray, top: float, inner: float) -> np.ndarray:
    run = np.clip((outward - inner) / 0.72, 0.0, 1.2)
    height = top + 0.15 - 0.15 * run - 0.03 * np.sin(2.0 * np.pi * run)
    half = 0.030 - 0.008 * np.sin(np.pi * np.clip(run, 0.0, 1.0))
    away = np.abs(y - height)
    bone = step(half - away, 0.012) * 0.65 + 0.5 * np.exp(-0.5 * ((away - 0.85 * half) / 0.008) ** 2)
    return bone * step(outward - inner, 0.02) * step(inner + 0.74 - outward, 0.03)

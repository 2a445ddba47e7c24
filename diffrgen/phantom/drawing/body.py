"""Draw the soft tissues: trunk, neck, arms, breasts, mediastinum, heart, aorta, stomach, windpipe."""

from __future__ import annotations

import numpy as np

from diffrgen.phantom.drawing.fields import blob, smooth_noise, step
from diffrgen.phantom.drawing.scene import SIDES, Scene


def draw_trunk(scene: Scene) -> None:
    """Add the trunk's thickness, the neck and the arms."""
    anatomy = scene.anatomy
    x, y = np.abs(scene.x), scene.y
    wall = 0.10 + 0.13 * anatomy.habitus
    outline = np.maximum(scene.half_width, 0.93 * scene.shape.width) + wall
    outline = outline + 0.75 * np.clip((-0.22 - y) / 0.42, 0.0, 1.0) ** 1.6
    shoulder = -0.99 + anatomy.shoulder + 0.30 * np.clip(x - 0.22, 0.0, 2.0) ** 0.85
    neck = step(0.25 + 0.05 * anatomy.habitus - x, 0.05) * step(-0.80 - y, 0.1)
    trunk = step(outline - x, 0.03) * step(y - shoulder, 0.06)
    thick = np.sqrt(np.clip(1.0 - (x / (outline + 0.02)) ** 2, 0.0, 1.0))
    thick *= 0.72 + 0.28 * np.clip((y + 0.75) / 0.5, 0.0, 1.0)
    base = 1.05 + 0.35 * anatomy.habitus
    scene.density += base * (0.35 + 0.65 * thick) * trunk
    scene.density += 0.75 * base * neck * np.sqrt(np.clip(1.0 - (x / 0.34) ** 2, 0.0, 1.0)) * (1.0 - trunk)
    if anatomy.arms:
        gap = outline + 0.03 + 0.16 * np.clip((y + 0.3) / 0.8, 0.0, 1.0)
        scene.density += 0.55 * base * step(x - gap, 0.03) * step(y + 0.42, 0.2) * step(gap + 0.3 - x, 0.1)


def draw_breasts(scene: Scene) -> None:
    """Add breast shadows with their lower rim."""
    size = scene.anatomy.breasts
    if size <= 0.0:
        return
    for side in SIDES:
        centre = (side * 0.48, 0.32 + 0.08 * size)
        radius = np.sqrt(
            ((scene.x - centre[0]) / (0.27 + 0.06 * size)) ** 2 + ((scene.y - centre[1]) / (0.25 + 0.04 * size)) ** 2
        )
        cup = step(1.0 - radius, 0.10) * np.clip(0.15 + 1.6 * (scene.y - centre[1] + 0.20), 0.0, 1.0)
        scene.density += (0.13 + 0.15 * size) * cup


def draw_lungs(scene: Scene) -> None:
    """Take the air of both lungs out of the trunk; the image is darkest where the lung is deepest."""
    for side in SIDES:
        outward = side * scene.x
        across = np.clip((outward - scene.medial) / (scene.half_width - scene.medial + 0.05), 0.0, 1.0)
        depth = 0.62 + 0.38 * np.sqrt(np.clip(4.0 * across * (1.0 - across), 0.0, 1.0))
        scene.density -= (0.80 + 0.22 * scene.anatomy.habitus) * depth * scene.lungs[side]


def draw_mediastinum(scene: Scene) -> None:
    """Add heart, great vessels and aortic knob as one shadow, the aorta behind it, and the belly."""
    anatomy, shape = scene.anatomy, scene.shape
    x, y = scene.x - scene.spine, scene.y
    core = step(scene.medial - np.abs(x), 0.06) * (
        step(shape.heart_bottom + 0.1 - y, 0.3) * step(y - shape.top + 0.05, 0.2)
    )
    stretch = 0.045 if anatomy.tortuous_aorta else 0.0
    knob = (0.085 + 0.6 * shape.widening + 0.5 * stretch, -0.36 - 0.6 * stretch)
    radius = np.hypot((x - knob[0]) / (0.075 + stretch), (y - knob[1]) / 0.09)
    middle = 0.80 + 0.20 * blob(x, y, (0.10, 0.28), (0.28, 0.26))
    great = (0.40 + min(0.16, shape.widening)) * core
    soft = np.maximum(great, 0.66 * scene.heart * middle)
    scene.density += np.maximum(soft, 0.44 * step(1.0 - radius, 0.25))
    descending = knob[0] + 0.02 + stretch * np.sin(3.0 * (y + 0.3))
    scene.density += 0.09 * step(0.045 - np.abs(x - descending), 0.05) * (step(y - knob[1], 0.1) * step(0.55 - y, 0.3))
    if anatomy.calcified_aorta:
        rim = np.exp(-0.5 * ((radius - 0.95) / 0.09) ** 2) * step(x - knob[0] + 0.02, 0.05)
        scene.density += 0.30 * rim
    belly = step(y - np.minimum(scene.diaphragm[-1], scene.diaphragm[1]), 0.05)
    scene.density += 0.10 * belly * step(shape.width + 0.05 - np.abs(scene.x), 0.2)


def draw_stomach(scene: Scene) -> None:
    """Take gas out below the left dome and a few loops of bowel."""
    gas = scene.acquisition.stomach_gas
    top = scene.shape.dome[1]
    if gas > 0.0:
        radius = np.hypot((scene.x - 0.30) / (0.10 + 0.09 * gas), (scene.y - top - 0.12) / (0.03 + 0.055 * gas))
        scene.density -= 0.42 * step(1.0 - radius, 0.35) * (1.0 - 0.6 * scene.heart)
    rng = scene.rng(31)
    for _ in range(int(rng.integers(0, 5))):
        centre = (float(rng.uniform(-0.2, 0.6)), float(rng.uniform(0.78, 1.0)))
        scene.density -= 0.18 * blob(scene.x, scene.y, centre, (0.07, 0.04))


def draw_airway(scene: Scene) -> None:
    """Take the windpipe and the main bronchi out of the mediastinum."""
    rows = scene.rows(-1.5, 0.1)
    x, y = (scene.x - scene.spine)[rows], scene.y[rows]
    density = scene.density[rows]
    density -= 0.24 * step(0.036 - np.abs(x), 0.03) * step(-0.19 - y, 0.06)
    for side, slope in ((-1, 1.25), (1, 0.8)):
        along = y + 0.21 - slope * (side * x)
        bronchus = step(0.035 - np.abs(along), 0.04) * step(side * x, 0.03) * step(0.13 - side * x, 0.05)
        density -= 0.13 * bronchus


def draw_clutter(scene: Scene) -> None:
    """Add slow unevenness of soft tissue that belongs to the patient."""
    scene.density += 0.022 * smooth_noise(scene.rng(30), scene.size, 9) * step(scene.density - 0.2, 0.3)

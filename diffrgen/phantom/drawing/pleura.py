"""Draw the pleural space: effusion, pneumothorax, thickening and plaques."""

from __future__ import annotations

import numpy as np

from diffrgen.phantom.drawing.fields import smooth_noise, step
from diffrgen.phantom.drawing.scene import SIDES, Scene
from diffrgen.phantom.patients.states import FindingState, Grade

THICKENING_STREAM = 60
# Height of the fluid at the lateral wall as a share of the lung's height.
FLUID = {Grade.SUBTLE: 0.10, Grade.MILD: 0.21, Grade.MODERATE: 0.38, Grade.SEVERE: 0.64}
# Distance of the pleural line from the wall at the apex, as a share of half the chest's width.
COLLAPSE = {Grade.SUBTLE: 0.10, Grade.MILD: 0.20, Grade.MODERATE: 0.33, Grade.SEVERE: 0.60}
THICKNESS = {Grade.SUBTLE: 0.018, Grade.MILD: 0.035, Grade.MODERATE: 0.056, Grade.SEVERE: 0.085}


def fluid_level(scene: Scene, state: FindingState, side: int) -> np.ndarray:
    """Return the height (y) of the meniscus over x, highest at the lateral wall, (S, S)."""
    shape = scene.shape
    share = FLUID[state.grade]
    lateral = shape.base - share * (shape.base - shape.top)
    across = np.clip(side * scene.x / shape.width, 0.0, 1.0)
    sag = (0.06 + 0.30 * min(share, 0.35)) * (1.0 - across**2.2)
    return (lateral + sag).astype(np.float32)


def draw_effusion(scene: Scene, state: FindingState, amount: float) -> None:
    """Fill the lung below the meniscus with fluid."""
    strength = (0.75 if state.grade == Grade.SUBTLE else 1.0) * amount
    for side in state.sides:
        level = fluid_level(scene, state, side)
        below = step(scene.y - level, 0.07)
        deeper = 0.80 + 0.20 * np.clip((scene.y - level) / 0.3, 0.0, 1.0)
        scene.density += 0.74 * strength * below * deeper * scene.lungs[side]


def pneumothorax_space(scene: Scene, state: FindingState, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Return (air, line): where free air lies and where the pleural line is, both (S, S) in 0..1."""
    shape = scene.shape
    depth = COLLAPSE[state.grade]
    fall = np.clip((scene.y - shape.top) / (shape.base - shape.top), 0.0, 1.0)
    inward = depth * (1.0 - 0.55 * fall) * scene.shape.width
    edge = scene.half_width - inward
    top = shape.top + 0.04 + 0.55 * inward
    distance = np.minimum(edge - side * scene.x, (scene.y - top) * 1.2)
    space = step(-distance, 0.02) * scene.lungs[side] * step(shape.base - 0.02 - scene.y, 0.1)
    line = np.exp(-0.5 * (distance / 0.009) ** 2) * scene.lungs[side]
    return space, line


def clear_pneumothorax(scene: Scene, state: FindingState) -> None:
    """Mark free air as holding no vessels and no texture; call before these are drawn."""
    for side in state.sides:
        space, _ = pneumothorax_space(scene, state, side)
        scene.tissue *= 1.0 - 0.95 * space


def draw_pneumothorax(scene: Scene, state: FindingState, amount: float) -> None:
    """Darken the free air, draw the pleural line, and thicken the collapsed lung."""
    faint = (0.55 if state.grade == Grade.SUBTLE else 1.0) * amount
    for side in state.sides:
        space, line = pneumothorax_space(scene, state, side)
        scene.density -= 0.16 * faint * space
        scene.density += 0.42 * faint * line
        squeezed = {Grade.MODERATE: 0.12, Grade.SEVERE: 0.26}.get(state.grade, 0.05)
        scene.density += squeezed * amount * (1.0 - space) * scene.lungs[side]


def draw_thickening(scene: Scene, state: FindingState, amount: float) -> None:
    """Add a scalloped rind along the lateral wall and calcified plaques in it."""
    rng = scene.rng(THICKENING_STREAM)
    for side in SIDES:
        waves = smooth_noise(rng, scene.size, 12)[:, :1]
        start = scene.shape.top + rng.uniform(0.22, 0.34)
        stop = rng.uniform(0.16, 0.3)
        if side not in state.sides:
            continue
        thick = THICKNESS[state.grade] * np.clip(1.0 + 0.30 * waves, 0.5, 1.6)
        from_wall = scene.half_width - side * scene.x
        rows = step(scene.y - start, 0.08) * step(stop - scene.y, 0.08)
        faint = (0.6 if state.grade == Grade.SUBTLE else 1.0) * amount
        rind = step(thick - from_wall, 0.018) * step(from_wall + 0.03, 0.03) * rows
        chalk = np.exp(-0.5 * ((from_wall - thick) / 0.009) ** 2) * rows
        scene.density += faint * (0.46 * rind + 0.42 * chalk)

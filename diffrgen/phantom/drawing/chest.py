"""Set up an image: chest wall, lungs, diaphragm and heart as borders in closed form."""

from __future__ import annotations

import numpy as np

from diffrgen.phantom.drawing.fields import step
from diffrgen.phantom.drawing.scene import SIDES, Scene
from diffrgen.phantom.drawing.shape import Shape, shape_of
from diffrgen.phantom.patients.anatomy import Anatomy
from diffrgen.phantom.patients.states import Acquisition, StudyState


def open_scene(anatomy: Anatomy, study: StudyState, *, size: int, contrast: float) -> Scene:
    """Return an empty image of `study`: coordinates, borders and masks, no density yet."""
    shape = shape_of(anatomy, study, contrast=contrast)
    x, y = _grid(study.acquisition, size)
    half_width = _half_width(y, shape)
    spine = _midline(y, anatomy)
    middle = spine + np.float32(study.acquisition.rotation + shape.pull)
    medial = _medial(y, shape)
    diaphragm = {side: _diaphragm(x, shape, side) for side in SIDES}
    heart = _heart(x - middle, y, shape) * (1.0 - 0.7 * step(y - np.minimum(diaphragm[-1], diaphragm[1]), 0.05))
    lungs = {side: _lung(side * x, side * (x - middle), y, half_width, medial, diaphragm[side]) for side in SIDES}
    return Scene(
        anatomy=anatomy,
        shape=shape,
        acquisition=study.acquisition,
        size=size,
        x=x,
        y=y,
        density=np.zeros((size, size), dtype=np.float32),
        half_width=half_width,
        medial=medial,
        lungs=lungs,
        diaphragm=diaphragm,
        heart=heart,
        tissue=np.ones((size, size), dtype=np.float32),
        spine=middle,
    )


def _grid(shot: Acquisition, size: int) -> tuple[np.ndarray, np.ndarray]:
    axis = (np.arange(size, dtype=np.float32) + 0.5) * (2.0 / size) - 1.0
    y = ((axis - shot.shift[1]) / shot.zoom)[:, None].astype(np.float32)
    x = ((axis - shot.shift[0]) / shot.zoom)[None, :] + shot.tilt * y
    return x.astype(np.float32), y  # (S, S), (S, 1)


def _half_width(y: np.ndarray, shape: Shape) -> np.ndarray:
    t = np.clip((y - shape.top) / (shape.base - shape.top), 0.0, 1.0)
    grown = np.sqrt(1.0 - (1.0 - t) ** 3.0)
    flare = 1.0 - 0.05 * np.clip((y - 0.1) / 0.5, 0.0, 1.0)
    return (shape.width * grown * flare).astype(np.float32)


def _midline(y: np.ndarray, anatomy: Anatomy) -> np.ndarray:
    return (anatomy.scoliosis * np.sin(2.6 * (y + 0.45))).astype(np.float32)


def _medial(y: np.ndarray, shape: Shape) -> np.ndarray:
    narrow = 0.62 + 0.38 * np.clip((y + 0.55) / 0.5, 0.0, 1.0)
    apex = 0.10 * np.exp(-np.clip(y - shape.top, 0.0, 2.0) / 0.07)
    upper = np.exp(-0.5 * np.abs((y + 0.34) / 0.24) ** 3)
    return (shape.mediastinum * narrow + apex + shape.widening * upper).astype(np.float32)


def _diaphragm(x: np.ndarray, shape: Shape, side: int) -> np.ndarray:
    u = np.clip(side * x / shape.width, 0.0, 1.05) - 0.42
    depth = shape.base + 0.06 - shape.dome[side]
    outer = depth * (np.clip(u, 0.0, 1.0) / 0.58) ** 2
    return (shape.dome[side] + outer + 0.25 * np.clip(-u, 0.0, 1.0) ** 2).astype(np.float32)


def _lung(
    outward: np.ndarray,
    from_middle: np.ndarray,
    y: np.ndarray,
    half_width: np.ndarray,
    medial: np.ndarray,
    diaphragm: np.ndarray,
) -> np.ndarray:
    inside = step(half_width - outward, 0.035) * step(from_middle - medial, 0.05)
    return inside * step(diaphragm - y, 0.022)


def heart_borders(y: np.ndarray, shape: Shape) -> tuple[np.ndarray, np.ndarray]:
    """Return how far the heart reaches to the patient's right and left of the midline at heights `y`.

    The largest reaches add up to `heart_ratio` times the width of the chest, 2 `width`.
    """
    t = (y - shape.heart_top) / (shape.heart_bottom - shape.heart_top)
    width = 2.0 * shape.width * shape.heart_ratio
    left = _bulge(t, peak=0.74, sharp=1.5) * width * shape.heart_left_share
    right = _bulge(t, peak=0.58, sharp=1.0) * width * (1.0 - shape.heart_left_share)
    return right, left


def _bulge(t: np.ndarray, *, peak: float, sharp: float) -> np.ndarray:
    rise = np.sin(0.5 * np.pi * np.clip(t / peak, 0.0, 1.0)) ** sharp
    fall = np.sqrt(1.0 - np.clip((t - peak) / (1.12 - peak), 0.0, 1.0) ** 2)
    return rise * fall


def _heart(x: np.ndarray, y: np.ndarray, shape: Shape) -> np.ndarray:
    right, left = heart_borders(y, shape)
    return step(left - x, 0.03) * step(x + right, 0.03) * step(y - shape.heart_top, 0.2)

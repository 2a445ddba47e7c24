"""The film's plane: coordinates, borders and soft masks of one study, and the density that is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from diffrgen.phantom.drawing.fields import Point
from diffrgen.phantom.drawing.shape import Shape
from diffrgen.phantom.patients.anatomy import Anatomy
from diffrgen.phantom.patients.states import Acquisition

# Signs of x: the patient's right, then left.
SIDES = (-1, 1)


@dataclass(slots=True)
class Scene:
    """One radiograph being drawn; `x` (S, S) and `y` (S, 1) are anatomical, x grows to the patient's left.

    `density` (S, S) float32 is what the beam loses; `tissue` in 0..1 is where vessels and lung texture show.
    """

    anatomy: Anatomy
    shape: Shape
    acquisition: Acquisition
    size: int
    x: np.ndarray
    y: np.ndarray
    density: np.ndarray
    half_width: np.ndarray
    medial: np.ndarray
    lungs: dict[int, np.ndarray]
    diaphragm: dict[int, np.ndarray]
    heart: np.ndarray
    tissue: np.ndarray
    spine: np.ndarray

    def rng(self, stream: int) -> np.random.Generator:
        """Return a generator of the patient's own, the same for each of the patient's films."""
        return np.random.default_rng((self.anatomy.seed, stream))

    def rows(self, low: float, high: float) -> slice:
        """Return the rows of the film between the heights `low` and `high`."""
        first, last = np.searchsorted(self.y[:, 0], (low, high))
        return slice(int(first), int(last))

    def columns(self, low: float, high: float) -> slice:
        """Return the columns of the film that hold any x between `low` and `high`."""
        ends = [np.searchsorted(self.x[row], (low, high)) for row in (0, -1)]
        return slice(int(min(first for first, _ in ends)), int(max(last for _, last in ends)))

    def pixels(self, points: Sequence[Point], scale: int = 1) -> list[Point]:
        """Return anatomical `points` as (column, row) on a film of `scale` times this one's size."""
        shot = self.acquisition
        half = 0.5 * self.size * scale
        zoom = shot.zoom * half
        left, top = (shot.shift[0] + 1.0) * half, (shot.shift[1] + 1.0) * half
        return [((x - shot.tilt * y) * zoom + left, y * zoom + top) for x, y in points]

    def midline(self, y: float) -> float:
        """Return x of the midline structures at height `y`."""
        return float(np.interp(y, self.y[:, 0], self.spine[:, 0]))

    def width_at(self, y: float) -> float:
        """Return the inner half width of the chest at height `y`."""
        return float(np.interp(y, self.y[:, 0], self.half_width[:, 0]))

"""The film's plane: coordinates, borders and soft masks of one study, and the density that is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image, ImageDraw

from diffrgen.phantom.anatomy import Anatomy
from diffrgen.phantom.shape import Shape
from diffrgen.phantom.states import Acquisition

Point = tuple[float, float]
SIDE_STREAM = {-1: 1, 1: 2}


def step(distance: np.ndarray, softness: float) -> np.ndarray:
    """Return a smooth step: 0 where `distance` is far below zero, 1 where far above, over `softness`."""
    ramp = distance * np.float32(1.0 / softness)
    ramp += np.float32(0.5)
    np.clip(ramp, 0.0, 1.0, out=ramp)
    smooth = np.float32(-2.0) * ramp
    smooth += np.float32(3.0)
    smooth *= ramp
    smooth *= ramp
    return smooth


def blob(x: np.ndarray, y: np.ndarray, centre: Point, radius: Point) -> np.ndarray:
    """Return a Gaussian of unit height about `centre` with standard deviations `radius`."""
    # Python floats: a NumPy float64 would turn the whole film to float64.
    across = (x - float(centre[0])) * (1.0 / float(radius[0]))
    down = (y - float(centre[1])) * (1.0 / float(radius[1]))
    return np.exp(-0.5 * (across * across + down * down))


@dataclass(slots=True)
class Scene:
    """One film being drawn; `x` (S, S) and `y` (S, 1) are anatomical, x grows to the patient's left.

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
    vessel_gain: dict[str, float] = field(default_factory=dict)

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


class Strokes:
    """Lines and outlines drawn at twice the film's size and read back in 0..1."""

    scale = 2

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        side = scene.size * self.scale
        self.image = Image.new("L", (side, side), 0)
        self.draw = ImageDraw.Draw(self.image)

    def line(self, points: Sequence[Point], *, width: float, value: float = 1.0) -> None:
        """Draw a line through anatomical `points`; `width` in pixels of a 256-pixel film."""
        pixels = max(1, round(width * self.scale * self.scene.size / 256))
        fill = round(255 * min(1.0, value))
        self.draw.line(self.scene.pixels(points, self.scale), fill=fill, width=pixels, joint="curve")

    def lines(self, points: np.ndarray, *, widths: np.ndarray, value: float) -> None:
        """Draw lines of equal brightness; `points` (lines, points, 2) anatomical, `widths` as in `line`."""
        shot = self.scene.acquisition
        half = 0.5 * self.scene.size * self.scale
        columns = (points[..., 0] - shot.tilt * points[..., 1]) * shot.zoom + shot.shift[0]
        rows = points[..., 1] * shot.zoom + shot.shift[1]
        placed = (np.stack([columns, rows], axis=-1) + 1.0) * half
        pixels = np.maximum(1, np.rint(widths * self.scale * self.scene.size / 256)).astype(int)
        fill = round(255 * min(1.0, value))
        for way, width in zip(placed.reshape(len(points), -1).tolist(), pixels.tolist(), strict=True):
            self.draw.line(way, fill=fill, width=width)

    def polygon(self, points: Sequence[Point], *, value: float = 1.0) -> None:
        """Fill the outline through anatomical `points`."""
        self.draw.polygon(self.scene.pixels(points, self.scale), fill=round(255 * min(1.0, value)))

    def read(self) -> np.ndarray:
        """Return what was drawn, (S, S) float32 in 0..1."""
        return np.asarray(self.image.reduce(self.scale), dtype=np.float32) / 255.0


def smooth_noise(rng: np.random.Generator, size: int, cells: int) -> np.ndarray:
    """Return smooth noise of unit scale, (size, size), that varies over size / cells pixels."""
    coarse = rng.standard_normal((cells, cells)).astype(np.float32)
    return np.asarray(Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC))

"""Lines and outlines in the image: ends of bones, vessels, tubes and the side marker."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from diffrgen.phantom.drawing.fields import Point
from diffrgen.phantom.drawing.scene import Scene


class Strokes:
    """Lines and outlines drawn at twice the size of the image and returned in 0..1."""

    scale = 2

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        side = scene.size * self.scale
        self.image = Image.new("L", (side, side), 0)
        self.draw = ImageDraw.Draw(self.image)

    def line(self, points: Sequence[Point], *, width: float, value: float = 1.0) -> None:
        """Draw a line through anatomical `points`; `width` in pixels of a 256-pixel image."""
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

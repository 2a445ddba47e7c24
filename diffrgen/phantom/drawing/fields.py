"""Fields over the film that everything drawn is made of: smooth steps, blobs and noise."""

from __future__ import annotations

import numpy as np
from PIL import Image

Point = tuple[float, float]


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
    # Python floats: a NumPy float64 would turn the complete image to float64.
    across = (x - float(centre[0])) * (1.0 / float(radius[0]))
    down = (y - float(centre[1])) * (1.0 / float(radius[1]))
    return np.exp(-0.5 * (across * across + down * down))


def smooth_noise(rng: np.random.Generator, size: int, cells: int) -> np.ndarray:
    """Return smooth noise of unit scale, (size, size), that varies over size / cells pixels."""
    coarse = rng.standard_normal((cells, cells)).astype(np.float32)
    return np.asarray(Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC))

"""From density to image: scatter, Beer-Lambert, quantum noise, the film curve, and the marker."""

from __future__ import annotations

import numpy as np
from PIL import Image

from diffrgen.phantom.drawing.scene import Scene
from diffrgen.phantom.drawing.strokes import Strokes

# Range above the white of the window in which differences stay visible, so that metal stands out from the heart.
HEADROOM = 1.7


def expose(scene: Scene, *, noise: float) -> np.ndarray:
    """Return the image of `scene`, (S, S) uint8; dense tissue is bright.

    Photons I = exp(-k D), D the density after scatter, k = 1.1; counting makes D noisy by exp(k D / 2).
    The image shows D windowed, its bright end compressed.
    """
    shot = scene.acquisition
    density = _scatter(np.maximum(scene.density, 0.0), scene.size)
    rng = np.random.default_rng(shot.seed)
    portable = shot.view == "AP"
    grain = rng.standard_normal((scene.size, scene.size), dtype=np.float32)
    density = density + 0.0085 * noise * (1.25 if portable else 1.0) * np.exp(0.55 * density) * grain
    low, high = 0.03, (1.52 + 0.42 * scene.anatomy.habitus) / shot.gain
    window = np.clip((density - low) / (high - low), 0.0, HEADROOM)
    # Bright parts are compressed, as in the shoulder of a film's characteristic curve, instead of clipped.
    shown = (1.0 - np.exp(-1.7 * window ** (0.95 * shot.gamma))) / (1.0 - np.exp(-1.7 * HEADROOM))
    shown = np.maximum(shown, 0.95 * _marker(scene))
    return np.clip(shown * 250.0 + 3.0, 0.0, 255.0).astype(np.uint8)


def _scatter(density: np.ndarray, size: int) -> np.ndarray:
    small = Image.fromarray(density.astype(np.float32)).resize((size // 16, size // 16), Image.Resampling.BOX)
    veil = np.asarray(small.resize((size, size), Image.Resampling.BICUBIC))
    return 0.86 * density + 0.14 * veil


def _marker(scene: Scene) -> np.ndarray:
    """Draw the side marker, an L at the patient's left shoulder, placed at random in each image."""
    rng = np.random.default_rng((scene.acquisition.seed, 1))
    strokes = Strokes(scene)
    x, y = rng.uniform(0.80, 0.90), rng.uniform(-0.93, -0.84)
    strokes.line([(x, y), (x, y + 0.075), (x + 0.04, y + 0.075)], width=2.6)
    if scene.acquisition.view == "AP":
        strokes.line([(x - 0.05, y + 0.13), (x + 0.06, y + 0.13)], width=1.6, value=0.8)
    return strokes.read()

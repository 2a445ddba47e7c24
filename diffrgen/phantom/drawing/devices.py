"""Draw support devices: tubes, lines, pacemaker, sternal wires."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

from diffrgen.phantom.drawing.fields import Point
from diffrgen.phantom.drawing.scene import Scene
from diffrgen.phantom.drawing.strokes import Strokes
from diffrgen.phantom.patients.states import Device

CARINA = -0.18
CENTIMETRE = 0.052
LINE_END = {"svc": -0.16, "junction": -0.03, "atrium": 0.10}


def curve(points: list[Point], *, steps: int = 12) -> list[Point]:
    """Return a smooth line through `points` (Catmull-Rom, `steps` to a span)."""
    padded = np.asarray([points[0], *points, points[-1]], dtype=np.float64)
    t = np.linspace(0.0, 1.0, steps, endpoint=False)[:, None]
    spans = []
    for before, start, end, after in zip(padded, padded[1:], padded[2:], padded[3:], strict=False):
        linear = (end - before) * t
        square = (2.0 * before - 5.0 * start + 4.0 * end - after) * t**2
        cubic = (3.0 * start - before - 3.0 * end + after) * t**3
        spans.append(0.5 * (2.0 * start + linear + square + cubic))
    path = np.concatenate([*spans, padded[-1:]])
    return [(float(x), float(y)) for x, y in path]


def tube_tip(centimetres: str) -> float:
    """Return the height of an endotracheal tube's tip, in units of half the image."""
    return CARINA - CENTIMETRE * float(centimetres)


def _endotracheal(scene: Scene, device: Device, strokes: Strokes, rng: np.random.Generator) -> None:
    tip = tube_tip(device.tip)
    path = [(scene.midline(y), float(y)) for y in np.linspace(-1.1, tip, 12)]
    for offset in (-0.021, 0.021):
        strokes.line([(x + offset, y) for x, y in path], width=1.9, value=0.9)
    strokes.line([(path[-1][0] - 0.021, tip), (path[-1][0] + 0.021, tip + 0.02)], width=1.8)


def _nasogastric(scene: Scene, device: Device, strokes: Strokes, rng: np.random.Generator) -> None:
    stomach = scene.shape.dome[1] + 0.1
    way = [(0.035, -1.1), (0.03, -0.6), (0.045, -0.2), (0.06, 0.1), (0.075, stomach - 0.16)]
    if device.tip == "stomach":
        way += [(0.13, stomach), (0.27, stomach + 0.07), (0.38, stomach + 0.02)]
    path = curve([(x + scene.midline(min(y, 0.3)), y) for x, y in way])
    strokes.line(path, width=2.4, value=0.95)
    strokes.line(path[-8:], width=3.8)


def _central(scene: Scene, device: Device, strokes: Strokes, rng: np.random.Generator) -> None:
    route, end = device.tip.split()
    side = 1 if device.side == "left" else -1
    last = LINE_END[end]
    cava = [(-0.075, -0.42), (-0.095, -0.28), (-0.10, last)]
    if side > 0:
        cava = [(0.06, -0.50), *cava]
    start = {
        "jugular": [(side * 0.17, -1.1), (side * 0.15, -0.8), (side * 0.11, -0.58)],
        "subclavian": [(side * 0.70, -0.42), (side * 0.50, -0.62), (side * 0.22, -0.58)],
        "picc": [(side * 1.0, -0.02), (side * 0.86, -0.30), (side * 0.62, -0.52), (side * 0.25, -0.56)],
    }[route]
    middle = scene.midline(-0.3)
    strokes.line(curve([*start, *[(x + middle, y) for x, y in cava]]), width=2.5, value=0.95)


def _pacemaker(scene: Scene, device: Device, strokes: Strokes, rng: np.random.Generator) -> None:
    side = 1 if device.side == "left" else -1
    x, y = side * 0.52, -0.40
    tilt = rng.uniform(-0.25, 0.25)
    angles = np.linspace(0.0, 2.0 * np.pi, 40)
    ring = (
        np.sign(np.cos(angles)) * np.abs(np.cos(angles)) ** 0.6,
        np.sign(np.sin(angles)) * np.abs(np.sin(angles)) ** 0.6,
    )
    box = [(x + 0.10 * a - 0.02 * tilt * b, y + 0.085 * b + 0.1 * tilt * a) for a, b in zip(*ring, strict=True)]
    strokes.polygon(box, value=1.0)
    middle = scene.midline(-0.3)
    vein = [
        (x - side * 0.04, y - 0.05),
        (side * 0.40, -0.56),
        (side * 0.20, -0.55),
        (middle - 0.06, -0.42),
        (middle - 0.095, -0.22),
    ]
    foot = scene.shape.dome[1]
    leads = [[(middle - 0.10, 0.02), (middle + 0.03, foot - 0.04), (middle + 0.17, foot - 0.06)]]
    if device.tip == "dual":
        leads.append([(middle - 0.13, -0.02), (middle - 0.12, 0.10), (middle - 0.05, 0.06)])
    for lead in leads:
        strokes.line(curve([*vein, *lead]), width=1.9, value=0.85)
        strokes.line(curve([*vein, *lead])[-5:], width=2.6, value=0.95)


def _sternal(scene: Scene, device: Device, strokes: Strokes, rng: np.random.Generator) -> None:
    angles = np.linspace(0.0, 2.0 * np.pi, 18)
    for y in np.linspace(-0.44, 0.16, 6):
        turn = rng.uniform(-0.4, 0.4)
        x = scene.midline(float(y)) + scene.acquisition.rotation + rng.uniform(-0.008, 0.008)
        loop = [(x + 0.034 * np.cos(a), y + 0.019 * np.sin(a) + 0.012 * turn * np.cos(a)) for a in angles]
        strokes.line(loop, width=2.0)
        strokes.line([(x - 0.012, y + 0.026), (x + 0.014, y + 0.012)], width=1.5)


def _chest_tube(scene: Scene, device: Device, strokes: Strokes, rng: np.random.Generator) -> None:
    side = 1 if device.side == "left" else -1
    way = [(0.98, 0.36), (0.66, 0.24), (0.55, -0.05), (0.45, -0.35), (0.36, scene.shape.top + 0.2)]
    path = curve([(side * x, y) for x, y in way])
    strokes.line(path, width=4.2, value=0.35)
    for offset in (-0.017, 0.017):
        strokes.line([(x + offset, y) for x, y in path], width=1.5, value=0.95)


Drawer = Callable[[Scene, Device, Strokes, np.random.Generator], None]
DRAWERS: Mapping[str, Drawer] = MappingProxyType(
    {
        "endotracheal tube": _endotracheal,
        "nasogastric tube": _nasogastric,
        "central line": _central,
        "pacemaker": _pacemaker,
        "sternal wires": _sternal,
        "chest tube": _chest_tube,
    }
)
DEVICE_KINDS: tuple[str, ...] = tuple(DRAWERS)


def draw_devices(scene: Scene, devices: tuple[Device, ...], amount: float) -> None:
    """Add every device in the image, radio-opaque."""
    for device in devices:
        strokes = Strokes(scene)
        DRAWERS[device.kind](scene, device, strokes, scene.rng(70 + DEVICE_KINDS.index(device.kind)))
        scene.density += (1.1 if device.kind == "pacemaker" else 0.72) * amount * strokes.read()

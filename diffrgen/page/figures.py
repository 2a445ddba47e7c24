"""The pictures of a page, drawn by matplotlib: what the network saw, where it looked, the windows it routed over."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from diffrgen.explanation import LayerRoute
from diffrgen.page.words import strongest

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INCHES, DOTS_PER_INCH = 2.6, 120
QUALITY = 90
HEAT = LinearSegmentedColormap.from_list("heat", [(0.93, 0.40, 0.05, 0.0), (1.0, 0.66, 0.16, 0.85)])
FULL = 4.0


def picture(image: np.ndarray, *, inches: float = INCHES) -> str:
    """Return the grey image (S, S) uint8 as a data URI, so wide in print."""
    figure, _ = _axes(image, inches=inches)
    return _data_uri(figure)


def heat_pictures(images: np.ndarray, heat: np.ndarray) -> list[str]:
    """Return each view (V, S, S) with its part of heat (V, gh, gw); lines enclose the fewest patches that hold half of it.

    The lines replace the colour in print and for readers who do not see colours. Colour begins where a patch gets more
    than an even share of the heat of all views, and is full at FULL even shares: heat that is spread evenly shows as none.
    """
    even = heat.sum() / heat.size
    top = max(FULL * even, heat.max())
    pictures = []
    for image, part, inside in zip(images, heat, strongest(heat), strict=True):
        figure, axes = _axes(image, brightness=0.85)
        axes.imshow(part, cmap=HEAT, extent=_extent(image), vmin=even, vmax=top, interpolation="nearest", zorder=2)
        _outline(axes, inside, image.shape)
        pictures.append(_data_uri(figure))
    return pictures


def route_picture(image: np.ndarray, route: LayerRoute) -> str:
    """Return the image with the patch grid and the window of the mask that got most weight; the rest is darkened."""
    figure, axes = _axes(image)
    rows, columns = route.window.shape
    shade = np.zeros((rows, columns, 4))
    shade[..., 3] = np.where(route.window, 0.0, 0.62)
    axes.imshow(shade, extent=_extent(image), interpolation="nearest", zorder=2)
    height, width = image.shape[0] / rows, image.shape[1] / columns
    for place in range(1, max(rows, columns)):
        style: dict[str, Any] = {"color": "white", "linewidth": 0.4, "alpha": 0.45, "zorder": 3}
        if place < rows:
            axes.axhline(place * height, **style)
        if place < columns:
            axes.axvline(place * width, **style)
    _outline(axes, route.window, image.shape)
    if route.chosen:
        row, column = route.centre
        corner = ((column + 0.25) * width, (row + 0.25) * height)
        box = Rectangle(corner, width / 2, height / 2, fill=False, edgecolor="white", linewidth=1.4, zorder=5)
        axes.add_patch(box)
    return _data_uri(figure)


def _axes(image: np.ndarray, *, brightness: float = 1.0, inches: float = INCHES) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(inches, inches * image.shape[0] / image.shape[1]), dpi=DOTS_PER_INCH)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set_axis_off()
    dimmed = image.astype(np.float64) * brightness
    axes.imshow(dimmed, cmap="gray", vmin=0, vmax=255, extent=_extent(image), interpolation="lanczos")
    return figure, axes


def _extent(image: np.ndarray) -> tuple[float, float, float, float]:
    return (0.0, float(image.shape[1]), float(image.shape[0]), 0.0)


def _outline(axes: Axes, inside: np.ndarray, shape: tuple[int, ...]) -> None:
    """Draw the border of the patches `inside` (gh, gw), along the edges of the patches."""
    height, width = shape[0] / inside.shape[0], shape[1] / inside.shape[1]
    padded = np.pad(inside, 1)
    lines = [
        [((column - 1) * width, row * height), (column * width, row * height)]
        for row, column in np.argwhere(padded[1:] != padded[:-1])
    ]
    lines += [
        [(column * width, (row - 1) * height), (column * width, row * height)]
        for row, column in np.argwhere(padded[:, 1:] != padded[:, :-1])
    ]
    for colour, breadth in (("black", 3.6), ("white", 1.7)):
        axes.add_collection(LineCollection(lines, colors=colour, linewidths=breadth, capstyle="projecting", zorder=4))
    axes.set_xlim(0, shape[1])
    axes.set_ylim(shape[0], 0)


def _data_uri(figure: Figure) -> str:
    stream = io.BytesIO()
    figure.savefig(stream, format="webp", pil_kwargs={"quality": QUALITY})
    return "data:image/webp;base64," + base64.b64encode(stream.getvalue()).decode("ascii")

"""The routing weights of a layer (Eq. 7), and the window that got most of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from diffrgen_kernels import window_masks

Stream = Literal["similar and differing", "similar", "differing"]


@dataclass(frozen=True)
class LayerRoute:
    """The routing of one layer.

    stream: the reports' features that it works on; layer: from 1; weights: one for each of `orders`; chosen: the order
    with the greatest; window (gh, gw) bool: what A^chosen shows to the report at patch `centre` (row, column).

    The window of report i lies round patch i mod m (Eq. 6): the centre drawn is one example, the report with the least
    of its window outside the image.
    """

    stream: Stream
    layer: int
    orders: tuple[int, ...]
    weights: tuple[float, ...]
    chosen: int
    report: int
    centre: tuple[int, int]
    window: np.ndarray = field(repr=False)


def layer_routes(
    routing: tuple[tuple[float, ...], ...], *, layers: int, grid: tuple[int, int], reports: int
) -> tuple[LayerRoute, ...]:
    """Name the routing weights of each layer; more than `layers` of them belong to a FAM of its own for D."""
    own = len(routing) > layers
    routes = []
    for place, weights in enumerate(routing):
        stream: Stream = ("differing" if place >= layers else "similar") if own else "similar and differing"
        chosen = int(np.argmax(weights))
        windows = window_masks(grid, (chosen,), reports)[0].numpy().astype(bool)  # (reports, m)
        report = int(windows.sum(1).argmax())
        routes.append(
            LayerRoute(
                stream=stream,
                layer=place % layers + 1,
                orders=tuple(range(len(weights))),
                weights=weights,
                chosen=chosen,
                report=report,
                centre=divmod(report % (grid[0] * grid[1]), grid[1]),
                window=windows[report].reshape(grid),
            )
        )
    return tuple(routes)

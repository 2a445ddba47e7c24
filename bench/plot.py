"""`python bench/plot.py RESULT.json PLOT.png`: seconds a call against the number of patches, a line a contender.

Several results may be given before the plot; their rows are drawn together.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator
from table import duration

# name in a result -> words of the legend, colour, dashes
LINES = {
    "eager": ("PyTorch", "#7f7f7f", "-"),
    "compiled": ("torch.compile", "#8c564b", "-"),
    "flex": ("FlexAttention", "#9467bd", "-"),
    "native": ("this project, C++/CUDA", "#d62728", "-"),
    "triton": ("this project, Triton", "#ff7f0e", "-"),
    "sdpa": ("SDPA without masks (other mathematics)", "#1f77b4", "--"),
    "xformers": ("xformers without masks (other mathematics)", "#17becf", "--"),
}
OURS = ("native", "triton")
TITLES = {"forward": "forward", "forward_backward": "forward + backward"}


@dataclass(frozen=True)
class Shape:
    """The sizes in a case's name: N rows, M patches, and the rest in the symbols of the paper."""

    rows: int
    patches: int
    rest: str

    @classmethod
    def of(cls, case: str) -> Shape:
        """Read a name.

        >>> Shape.of("b2_h8_p2_21x49_d64")
        Shape(rows=21, patches=49, rest='B2 H8 P2 D64')
        """
        found = re.fullmatch(r"(\w+)_(\d+)x(\d+)(\w*)", case)
        if found is None:
            raise ValueError(f"case: expected a name with ROWSxPATCHES, got {case!r}")
        return cls(int(found[2]), int(found[3]), (found[1] + found[4]).upper().replace("_", " "))


def draw(result: dict[str, Any]) -> Figure:
    """The figure of a result, one panel a direction that it holds; of cases with as many rows as patches, if there are any."""
    square = [row for row in result["rows"] if (shape := Shape.of(row["case"])).rows == shape.patches]
    rows = square or result["rows"]
    found = {row["direction"] for row in rows}
    titles = {direction: title for direction, title in TITLES.items() if direction in found}
    figure = Figure(figsize=(2 + 4.5 * len(titles), 4.8), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(titles), sharey=True, squeeze=False)[0]
    for axes, (direction, title) in zip(panels, titles.items(), strict=True):
        _panel(axes, [row for row in rows if row["direction"] == direction])
        axes.set_title(title)
    panels[0].set_ylabel("time of a call, median and quartiles")
    handles = {label: h for axes in panels for h, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=2 * len(titles), frameon=False)
    figure.suptitle(_subject(result, rows), fontsize=10)
    return figure


def _panel(axes: Axes, rows: Sequence[dict[str, Any]]) -> None:
    sizes = sorted({Shape.of(row["case"]).patches for row in rows})
    for name, (label, colour, dashes) in LINES.items():
        own = sorted((row for row in rows if row["contender"] == name), key=lambda row: Shape.of(row["case"]).patches)
        if not own:
            continue
        seconds = [row["seconds"] for row in own]
        middle = [each["median"] for each in seconds]
        below = [each["median"] - each["first_quartile"] for each in seconds]
        above = [each["third_quartile"] - each["median"] for each in seconds]
        axes.errorbar(
            [Shape.of(row["case"]).patches for row in own],
            middle,
            yerr=(below, above),
            label=label,
            color=colour,
            linestyle=dashes,
            linewidth=2.5 if name in OURS else 1.5,
            marker="o",
            markersize=4,
            capsize=2,
        )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda seconds, _: duration(seconds)))
    axes.set_xlabel("image patches M, as many query rows")
    axes.grid(alpha=0.3)


def _subject(result: dict[str, Any], rows: Sequence[dict[str, Any]]) -> str:
    machine = result["machine"]
    place = machine.get("gpu") or f"{machine['processor']}, {machine['threads']} threads"
    shapes = [Shape.of(case) for case in dict.fromkeys(row["case"] for row in rows)]
    one = len({shape.rest for shape in shapes}) == 1
    words = shapes[0].rest if one else ", ".join(f"{shape.rest} at {shape.patches}" for shape in shapes)
    return f"routed co-attention, {result['dtype']}, {place}\n{words}"


def main(arguments: Sequence[str]) -> int:
    """Read the results, write the plot."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", nargs="+", type=Path, metavar="RESULT.json")
    parser.add_argument("plot", type=Path, metavar="PLOT.png")
    options = parser.parse_args(arguments)
    results = [json.loads(path.read_text(encoding="utf-8")) for path in options.results]
    results[0]["rows"] = [row for result in results for row in result["rows"]]
    options.plot.parent.mkdir(parents=True, exist_ok=True)
    draw(results[0]).savefig(options.plot)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

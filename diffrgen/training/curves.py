"""The curves of a training as one picture: curves.png, drawn from metrics.jsonl."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from diffrgen.staging import replace_file
from diffrgen.training.log_lines import read_log
from diffrgen.training.validation import LOSSES

# Okabe and Ito's colour-blind-safe colours; markers distinguish the terms in grey print, and dashed lines are validation.
COLOURS = {"loss": "#000000", "language_loss": "#0072B2", "disease_loss": "#D55E00", "contrast_loss": "#009E73"}
MARKS = {"loss": "o", "language_loss": "o", "disease_loss": "s", "contrast_loss": "^"}
SCORE, RATE, TEMPERATURE = "#8E3A6B", "#0072B2", "#D55E00"
WIDTH, HEIGHT, DOTS_PER_INCH = 10.0, 6.6, 150


@dataclass(frozen=True)
class Curves:
    """The logged values of one phase by name, each a list of (step, value) in order of steps."""

    points: Mapping[str, Sequence[tuple[int, float]]]

    def draw(self, axes: Axes, name: str, label: str, colour: str, style: str) -> None:
        """Draw one curve where there is one."""
        points = self.points.get(name)
        if points:
            # A line needs two points to be seen.
            mark = "." if len(points) == 1 and style.startswith("-") else ""
            axes.plot(*zip(*points, strict=True), mark + style, color=colour, label=label, linewidth=1.3, markersize=4)


def read_curves(path: Path, phase: str) -> Curves:
    """Return the curves of `phase` in a log; of a step that comes twice, the later line. No log is an empty one."""
    values: dict[str, dict[int, float]] = {}
    for line in read_log(path):
        if line.phase == phase:
            for name, value in line.scalars.items():
                values.setdefault(name, {})[line.step] = value
    return Curves({name: sorted(points.items()) for name, points in values.items()})


def draw_curves(run: Path) -> Path | None:
    """Draw losses, micro-F1, learning rate and temperature of the run in the folder `run` as curves.png.

    Returns its path, or None if nothing has been logged yet.
    """
    train, validation = (read_curves(run / "metrics.jsonl", phase) for phase in ("train", "val"))
    if not train.points and not validation.points:
        return None
    figure = Figure(figsize=(WIDTH, HEIGHT), layout="constrained")
    panels = figure.subplots(2, 2)
    _losses(panels[0, 0], train, validation, ["loss"], "whole loss")
    _losses(panels[0, 1], train, validation, [name for name in LOSSES if name != "loss"], "its terms, without weights")
    _score(panels[1, 0], validation)
    _schedule(panels[1, 1], train)
    for axes in panels.flat:
        axes.set_xlabel("step")
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.set_xlim(left=0)
        axes.title.set_fontsize(11)
        axes.grid(visible=True, color="#DDDDDD", linewidth=0.6)
        axes.set_axisbelow(True)
    picture = BytesIO()
    figure.savefig(picture, format="png", dpi=DOTS_PER_INCH)
    replace_file(run / "curves.png", picture.getvalue())
    return run / "curves.png"


def _losses(axes: Axes, train: Curves, validation: Curves, names: Sequence[str], title: str) -> None:
    for name in names:
        short = name.removesuffix("_loss")
        train.draw(axes, name, f"{short}, training", COLOURS[name], "-")
        validation.draw(axes, name, f"{short}, validation", COLOURS[name], f"{MARKS[name]}--")
    axes.set_title(f"Loss: {title}")
    axes.set_ylabel("loss")
    if axes.lines:
        axes.legend(fontsize=8)


def _score(axes: Axes, validation: Curves) -> None:
    validation.draw(axes, "micro_f1", "micro-F1", SCORE, "o-")
    points = validation.points.get("micro_f1")
    if points:
        # The first of several equal scores is kept, as in training.
        step, best = max(points, key=lambda point: point[1])
        axes.axhline(best, color=SCORE, linewidth=0.8, linestyle=":")
        axes.set_title(f"Micro-F1 of the validation reports: best {best:.3f} at step {step}")
        axes.set_ylim(-0.03, max(best * 1.1, 0.1))
    axes.set_ylabel("micro-F1 over 13 diseases")


def _schedule(axes: Axes, train: Curves) -> None:
    train.draw(axes, "learning_rate", "learning rate", RATE, "-")
    axes.set_ylabel("learning rate")
    axes.set_ylim(bottom=0.0)
    axes.ticklabel_format(axis="y", style="scientific", scilimits=(0, 0), useMathText=True)
    other = axes.twinx()
    train.draw(other, "temperature", "Gumbel temperature", TEMPERATURE, "--")
    other.set_yscale("log")
    other.set_ylabel("Gumbel temperature (log)")
    axes.set_title("Learning rate, routing temperature")
    if axes.lines:
        axes.legend(handles=[*axes.lines, *other.lines], fontsize=8)

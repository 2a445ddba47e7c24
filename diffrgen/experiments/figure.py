"""A study's results as a picture: how each variant differs from the full network in four measures, one dot a seed."""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from diffrgen.experiments.measures import MEASURES, Measure
from diffrgen.experiments.results import StudyResults

SHOWN = ("f1", "classifier_f1", "change_f1", "rare_recall")
OWN, PAPER = "#20639b", "#d1495b"


def write_figure(results: StudyResults, path: Path) -> None:
    """Write a PNG: a panel a measure, a line a variant, with the mean difference, seeds, 95 % interval over studies, and
    the paper's difference.
    """
    by_name = {measure.name: measure for measure in MEASURES}
    measures = [by_name[name] for name in SHOWN if results.has([by_name[name]])]
    full, *variants = results.study.rows
    figure = Figure(figsize=(3.2 * len(measures) + 1.4, 0.42 * len(variants) + 1.7), layout="constrained")
    FigureCanvasAgg(figure)
    for place, axes in enumerate(figure.subplots(1, len(measures), squeeze=False)[0]):
        _panel(axes, results, measures[place])
        axes.set_yticks(range(len(variants)), [row.label for row in variants] if not place else [])
        axes.set_ylim(len(variants) - 0.5, -0.5)
    figure.suptitle(f"{results.study.title} (difference from {full.label})")
    figure.savefig(path, dpi=130)


def _panel(axes: Axes, results: StudyResults, measure: Measure) -> None:
    full, *variants = results.study.rows
    axes.set_title(measure.label, fontsize=10)
    axes.grid(axis="x", alpha=0.3)
    axes.axvline(0.0, color="black", lw=0.8)
    for line, row in enumerate(variants):
        change = results.differences[row.variant.name][measure.name]
        if change is not None:
            if change.study_interval is not None:
                axes.plot(change.study_interval, [line, line], color=OWN, lw=2, alpha=0.5)
            axes.plot(change.values, [line] * len(change.values), "o", color=OWN, ms=3, alpha=0.6)
            axes.plot([change.mean], [line], "D", color=OWN, ms=6)
        if measure.name in row.published and measure.name in full.published:
            axes.plot([row.published[measure.name] - full.published[measure.name]], [line], "x", color=PAPER, ms=7)
            axes.set_xlabel("x: published, MIMIC-CXR", color=PAPER, fontsize=8)

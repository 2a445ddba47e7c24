"""A study's results as a picture: every variant's scores of four measures, one dot a seed."""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from diffrgen.experiments.measures import MEASURES, Measure
from diffrgen.experiments.results import StudyResults

SHOWN = ("f1", "rouge_l", "change_f1", "rare_recall")
OWN, PAPER = "#20639b", "#d1495b"


def write_figure(results: StudyResults, path: Path) -> None:
    """Write a PNG: a panel a measure, a line a variant, with its mean, seeds, 95 % interval over studies, and the paper's."""
    by_name = {measure.name: measure for measure in MEASURES}
    measures = [by_name[name] for name in SHOWN if results.has([by_name[name]])]
    figure = Figure(figsize=(3.2 * len(measures) + 1.4, 0.42 * len(results.study.rows) + 1.5), layout="constrained")
    FigureCanvasAgg(figure)
    for place, axes in enumerate(figure.subplots(1, len(measures), squeeze=False)[0]):
        _panel(axes, results, measures[place])
        axes.set_yticks(range(len(results.study.rows)), [row.label for row in results.study.rows] if not place else [])
        axes.set_ylim(len(results.study.rows) - 0.5, -0.5)
    figure.suptitle(results.study.title)
    figure.savefig(path, dpi=130)


def _panel(axes: Axes, results: StudyResults, measure: Measure) -> None:
    axes.set_title(measure.label, fontsize=10)
    axes.grid(axis="x", alpha=0.3)
    for line, row in enumerate(results.study.rows):
        score = results.scores[row.variant.name][measure.name]
        if score is not None:
            if score.study_interval is not None:
                axes.plot(score.study_interval, [line, line], color=OWN, lw=2, alpha=0.5)
            axes.plot(score.values, [line] * len(score.values), "o", color=OWN, ms=3, alpha=0.6)
            axes.plot([score.mean], [line], "D", color=OWN, ms=6)
        if measure.name in row.published:
            axes.plot([row.published[measure.name]], [line], "x", color=PAPER, ms=7)
    if any(measure.name in row.published for row in results.study.rows):
        axes.set_xlabel("x: published, MIMIC-CXR", color=PAPER, fontsize=8)

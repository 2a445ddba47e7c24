"""The figure of a run's confidence: reliability diagram, and risk against coverage."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from diffrgen.metrics.confidence import ConfidenceScores
from diffrgen.staging import replace_file

FILE, INK, QUIET, DOTS_PER_INCH = "confidence.png", "#0f5e73", "#8a97a1", 120


def draw_confidence(scores: ConfidenceScores, folder: Path) -> Path:
    """Write confidence.png to `folder` and return its path."""
    figure = Figure(figsize=(9.0, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    reliability, coverage = figure.subplots(1, 2)
    _draw_reliability(reliability, scores)
    _draw_risk(coverage, scores)
    for axes in (reliability, coverage):
        axes.grid(visible=True, color="#DDDDDD", linewidth=0.6)
        axes.set_axisbelow(True)
    picture = BytesIO()
    figure.savefig(picture, format="png", dpi=DOTS_PER_INCH)
    replace_file(folder / FILE, picture.getvalue())
    return folder / FILE


def _draw_reliability(axes: Axes, scores: ConfidenceScores) -> None:
    filled = [
        (one.mean_probability, one.share_true, one.count)
        for one in scores.bins
        if one.mean_probability is not None and one.share_true is not None
    ]
    axes.plot([0, 1], [0, 1], color=QUIET, linewidth=1, linestyle="--", label="perfect calibration")
    axes.plot([mean for mean, _, _ in filled], [true for _, true, _ in filled], "o-", color=INK, label="sentences")
    for mean, true, count in filled:
        axes.annotate(f"{count:,}", (mean, true), (5, -11), textcoords="offset points", fontsize=7)
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel="probability given", ylabel="share of true sentences")
    axes.set_title(f"Reliability: calibration error {scores.ece:.3f}", fontsize=11)
    axes.legend(fontsize=8, loc="upper left")


def _draw_risk(axes: Axes, scores: ConfidenceScores) -> None:
    share, error = [float(share) for share in scores.risk], 1 - scores.share_true
    axes.axhline(error, color=QUIET, linewidth=1, linestyle="--", label="all sentences")
    axes.plot(share, list(scores.risk.values()), "o-", color=INK, label="the surest")
    axes.set(xlim=(0, 1.02), xlabel="share of sentences, most confident first", ylabel="share of false sentences")
    axes.set_ylim(bottom=0)
    axes.set_title(f"Risk-coverage curve: area {scores.aurc:.3f}", fontsize=11)
    axes.legend(fontsize=8)

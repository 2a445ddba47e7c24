"""A study's results as Markdown: scores next to the published ones, and differences from the full network."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from diffrgen.experiments.comparison import Estimate
from diffrgen.experiments.measures import CLINICAL, LANGUAGE, PROMPTS, STATEMENTS, Measure
from diffrgen.experiments.results import StudyResults

PUBLISHED = "published, MIMIC-CXR"
ABSENT = "-"
# Tables for those measures that a study's runs have.
FURTHER = (
    ("Classifier and decoder: the states that prompt the decoder, and whether the report mentions them:\n", PROMPTS),
    ("Statements, scored against the phantom's ground truth (definitions: docs/experiments.md):\n", STATEMENTS),
)


def study_markdown(results: StudyResults) -> str:
    """Return the complete report of a study."""
    parts = [
        f"# {results.study.title}\n",
        f"{results.description}\n",
        "Mean over seeds [95 % interval over seeds, by Student's t].\n",
        _scores(results, (*CLINICAL, *LANGUAGE)),
    ]
    further = [(title, measures) for title, measures in FURTHER if results.has(measures)]
    for title, measures in further:
        parts += [title, _scores(results, measures)]
    if len(results.study.rows) > 1:
        parts += [
            "Difference from the first row: mean over seeds [95 % interval over studies, bootstrap of the paired "
            "difference], p of the paired t-test over seeds. Bold: p < 0.05 and an interval without 0. The "
            "p-values are not adjusted for the number of comparisons.\n",
        ]
        tables = [(*CLINICAL, *LANGUAGE), *(measures for _, measures in further)]
        parts += [_differences(results, measures) for measures in tables]
    routing = _routing(results)
    if routing:
        parts += [
            "Routing, mean over seeds: the weights of A^0, A^1, ..., their entropy (over log p) and their dependence on the "
            "image (entropy of the mean weights minus the mean entropy):\n",
            _table(["Variant", "layer", "weights", "entropy", "spread"], routing),
        ]
    if any(row.published for row in results.study.rows):
        parts += [
            f"The {PUBLISHED} columns are the paper's: other data, other labels and a larger network. Compare the "
            "order of the rows, not the values.\n"
        ]
    return "\n".join(parts)


def _scores(results: StudyResults, measures: Sequence[Measure]) -> str:
    header = ["Variant", "parameters"]
    printed = [m for m in measures if any(m.name in row.published for row in results.study.rows)]
    header += [measure.label for measure in measures] + [f"{measure.label} ({PUBLISHED})" for measure in printed]
    lines = []
    for row in results.study.rows:
        own = [_mean(results.scores[row.variant.name][measure.name]) for measure in measures]
        paper = [f"{row.published[m.name]:.3f}" if m.name in row.published else ABSENT for m in printed]
        lines.append([row.label, f"{results.parameters[row.variant.name]:,}", *own, *paper])
    return _table(header, lines)


def _differences(results: StudyResults, measures: Sequence[Measure]) -> str:
    lines = [
        [row.label, *(_change(results.differences[row.variant.name][measure.name]) for measure in measures)]
        for row in results.study.rows[1:]
    ]
    return _table(["Variant", *(measure.label for measure in measures)], lines)


def _routing(results: StudyResults) -> list[list[str]]:
    """Return a line for each variant and layer that routes."""
    lines = []
    for row in results.study.rows:
        found = [run.routing for run in results.runs[row.variant.name] if run.routing is not None]
        for place, layer in enumerate(found[0].layers if found else ()):
            weights = np.mean([routing.mean[place] for routing in found], axis=0)
            decided = [np.mean([getattr(routing, name)[place] for routing in found]) for name in ("entropy", "spread")]
            texts = [" ".join(f"{weight:.2f}" for weight in weights), *(f"{value:.3f}" for value in decided)]
            lines.append([row.label, str(layer + 1), *texts])
    return lines


def _table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rows = [header, ["---", *["---:"] * (len(header) - 1)], *lines]
    return "".join("| " + " | ".join(row) + " |\n" for row in rows)


def _mean(value: Estimate | None) -> str:
    if value is None:
        return ABSENT
    return f"{value.mean:.3f}" + _interval(value.seed_interval, "{:.3f}")


def _change(value: Estimate | None) -> str:
    if value is None:
        return ABSENT
    text = f"{value.mean:+.3f}{_interval(value.study_interval, '{:+.3f}')}"
    if value.p_value is not None:
        text += f", p {value.p_value:.3f}" if value.p_value >= 0.001 else ", p < 0.001"
    return f"**{text}**" if value.clear else text


def _interval(interval: tuple[float, float] | None, form: str) -> str:
    if interval is None:
        return ""
    return f" [{form.format(interval[0])}, {form.format(interval[1])}]"

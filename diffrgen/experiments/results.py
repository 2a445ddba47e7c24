"""The results of a study: scores and differences of every variant and measure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from diffrgen.experiments.comparison import Estimate, difference, estimate
from diffrgen.experiments.measures import MEASURES, Measure
from diffrgen.experiments.record import RunRecord
from diffrgen.experiments.variants import Study

# An estimate by the names of variant and measure; None if a run has no such score.
Estimates = dict[str, dict[str, Estimate | None]]


@dataclass(frozen=True)
class StudyResults:
    """Estimates of a study; `differences` are from its first row, which has none itself."""

    study: Study
    runs: Mapping[str, Sequence[RunRecord]]
    scores: Estimates
    differences: Estimates

    @classmethod
    def of(cls, study: Study, records: Sequence[RunRecord]) -> StudyResults:
        """Compare the records of a study, those of each variant in the order of their seeds."""
        names = [row.variant.name for row in study.rows]
        runs = {name: sorted((r for r in records if r.variant == name), key=lambda run: run.seed) for name in names}
        full = runs[names[0]]
        return cls(
            study,
            runs,
            {name: {m.name: estimate(m, runs[name]) for m in MEASURES} for name in names},
            {name: {m.name: difference(m, runs[name], full) for m in MEASURES} for name in names[1:]},
        )

    @property
    def parameters(self) -> dict[str, int]:
        """The number of weights of each variant."""
        return {name: runs[0].parameters for name, runs in self.runs.items()}

    @property
    def description(self) -> str:
        """The data, the size of the trainings and the machine as text."""
        first = self.runs[self.study.rows[0].variant.name][0]
        options, summary = first.options, first.summary
        data = options.data.data
        if data == "phantom":
            data = f"phantom of {options.phantom.studies} studies, {options.phantom.size} px"
        seconds = [run.summary.seconds for runs in self.runs.values() for run in runs]
        return (
            f"{data}; {len(first.studies)} {first.scoring.split} studies; {len(self.runs[first.variant])} seed(s); "
            f"{summary.steps} steps of {options.optimiser.batch_size} studies at {options.image.size} px, "
            f"{sum(seconds) / len(seconds):.0f} s a training; {summary.machine}; "
            + ", ".join(f"{name} {version}" for name, version in summary.versions.items())
            + "."
        )

    def has(self, measures: Sequence[Measure]) -> bool:
        """Return whether any variant has any of `measures`."""
        return any(scores[measure.name] is not None for scores in self.scores.values() for measure in measures)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "study": self.study.name,
            "description": self.description,
            "parameters": self.parameters,
            "scores": _plain(self.scores),
            "differences": _plain(self.differences),
            "published": {row.variant.name: dict(row.published) for row in self.study.rows if row.published},
        }


def _plain(estimates: Estimates) -> dict[str, dict[str, Any]]:
    return {
        variant: {name: None if value is None else asdict(value) for name, value in by_measure.items()}
        for variant, by_measure in estimates.items()
    }

"""The use of the prior study by a model trained on the phantom: its statements of change, by the parts of the prior it gets.

    python bench/priors.py RUN --output priors.json

Each follow-up of the test split is reported with its own earlier study, without one, with that of another patient, and with
the image or the report of its own alone; first studies are always reported without.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from machine import describe
from result import publish

from diffrgen.evaluation.statements import SCORES, Statements, StatementTruth, stated_changes
from diffrgen.metrics.bootstrap import bootstrap_interval
from diffrgen.pipeline.options import GenerationOptions
from diffrgen.pipeline.source import load_source
from diffrgen.records import Study
from diffrgen.reporting.prior_study import PriorStudy
from diffrgen.reporting.reporter import Reporter


@dataclass(frozen=True)
class Command:
    """Count the statements of change of a run on the phantom, by what it is given of the earlier study."""

    run: tyro.conf.Positional[Path]
    """The folder of a run that takes earlier studies."""
    beams: int = 3
    """Beams of the search."""
    output: Path | None = None
    """File for all figures as JSON."""


def whole(studies: Sequence[Study]) -> list[PriorStudy]:
    """Image and report of each."""
    return [PriorStudy(study.images[0], study.report) for study in studies]


def exchanged(studies: Sequence[Study]) -> list[Study]:
    """Each study in another's place, half the list away: those of one patient stand side by side."""
    middle = len(studies) // 2
    return [*studies[middle:], *studies[:middle]]


GIVEN: dict[str, Callable[[Sequence[Study]], list[PriorStudy]]] = {
    "own": whole,
    "another's": lambda studies: whole(exchanged(studies)),
    "image alone": lambda studies: [PriorStudy(image=study.images[0]) for study in studies],
    "report alone": lambda studies: [PriorStudy(report=study.report) for study in studies],
}


def kinds(reports: Sequence[str], references: Sequence[str]) -> dict[str, dict[str, int]]:
    """The number of statements of each kind of change: in the reports, correct, and in the references."""
    told, true = ([stated_changes(text) for text in texts] for texts in (reports, references))
    found = {"told": told, "right": [a & b for a, b in zip(told, true, strict=True)], "true": true}
    return {name: dict(Counter(change for study in studies for _, change in study)) for name, studies in found.items()}


def change_f1_gain(one: Statements, other: Statements) -> dict[str, Any]:
    """The change F1 of `one` less that of `other`, with the 95 % interval of a paired bootstrap over studies."""

    def difference(sums: np.ndarray) -> np.ndarray:
        mine, theirs = (SCORES["change_f1"].of(part) for part in np.split(sums, 2, axis=-1))
        return mine - theirs

    counts = np.concatenate([one.counts, other.counts], axis=1)
    return {
        "difference": float(difference(counts.sum(0))),
        "interval": bootstrap_interval(counts, difference, resamples=1000, seed=0),
    }


def measure(run: Path, beams: int) -> dict[str, Any]:
    """Write the test reports without earlier studies, and those of follow-ups with each of GIVEN; count."""
    reporter = Reporter(run)
    source = load_source(reporter.settings.data, reporter.settings.phantom)
    studies, known = source.splits.test, source.splits.by_id()
    follow_ups = [row for row, study in enumerate(studies) if study.prior_id is not None]
    before = [known[studies[row].prior_id or ""] for row in follow_ups]
    images, options = [study.images[0] for study in studies], GenerationOptions(beams=beams, batch_size=32)
    written = {"none": list(reporter.write(images, options))}
    for name, given in GIVEN.items():
        again = reporter.write([images[row] for row in follow_ups], options, given(before))
        changed = dict(zip(follow_ups, again, strict=True))
        written[name] = [changed.get(row, report) for row, report in enumerate(written["none"])]

    truth = StatementTruth.of(studies, source.splits.train)
    scored = {
        name: truth.score([each.report for each in reports], [each.neighbour_reports for each in reports])
        for name, reports in written.items()
    }
    references = [study.report for study in studies]
    return {
        "machine": describe("cpu"),
        "beams": beams,
        "follow_ups": len(follow_ups),
        "given": {
            name: {**scored[name].to_dict(), "kinds": kinds([each.report for each in reports], references)}
            for name, reports in written.items()
        },
        "change_f1_of_own_less": {
            name: change_f1_gain(scored["own"], other) for name, other in scored.items() if name != "own"
        },
    }


def main() -> None:
    """Run the command."""
    command = tyro.cli(Command)
    publish(measure(command.run, command.beams), command.output)


if __name__ == "__main__":
    main()

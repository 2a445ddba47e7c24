"""Scores of change, severity, rare diseases and copying in reports of the phantom, against the ground truth."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from diffrgen.labels import DISEASES, State, base_frequencies
from diffrgen.metrics import Interval
from diffrgen.metrics.bootstrap import bootstrap_interval, ratio
from diffrgen.phantom import GrammarParser, ParsedReport
from diffrgen.records import Study

COUNTS: tuple[str, ...] = (
    *("change_right", "change_said", "change_true", "change_copied"),
    *("first", "first_with_change"),
    *("severity_right", "severity_told"),
    *("rare_found", "rare_true"),
    *("finding_said", "finding_false", "finding_copied", "finding_absent", "finding_offered"),
)


class Quotient(NamedTuple):
    """A score: a sum of counts over another one, each count with its factor."""

    part: Mapping[str, int]
    whole: Mapping[str, int]

    def of(self, sums: np.ndarray) -> np.ndarray:
        """Return the score (...) of sums (..., len(COUNTS)) over studies, NaN for 0/0."""
        part, whole = (sums @ np.array([terms.get(name, 0) for name in COUNTS]) for terms in self)
        return ratio(part.astype(np.float64), whole.astype(np.float64))


SCORES: Mapping[str, Quotient] = MappingProxyType(
    {
        "change_precision": Quotient({"change_right": 1}, {"change_said": 1}),
        "change_recall": Quotient({"change_right": 1}, {"change_true": 1}),
        "change_f1": Quotient({"change_right": 2}, {"change_said": 1, "change_true": 1}),
        "change_without_prior": Quotient({"first_with_change": 1}, {"first": 1}),
        "severity_accuracy": Quotient({"severity_right": 1}, {"severity_told": 1}),
        "rare_recall": Quotient({"rare_found": 1}, {"rare_true": 1}),
        "false_findings": Quotient({"finding_false": 1}, {"finding_said": 1}),
        "hallucination": Quotient({"finding_copied": 1, "change_copied": 1}, {"finding_said": 1, "change_said": 1}),
        "false_where_offered": Quotient({"finding_copied": 1}, {"finding_offered": 1}),
        "false_elsewhere": Quotient(
            {"finding_false": 1, "finding_copied": -1}, {"finding_absent": 1, "finding_offered": -1}
        ),
    }
)


@dataclass(frozen=True, eq=False)
class Statements:
    """The counts of each study, (n, len(COUNTS)) int64 in the order of COUNTS, and the rare findings among them.

    Counts of several runs can be added, and those of any studies summed, before `Quotient.of` makes scores of them.
    """

    counts: np.ndarray
    rare: tuple[str, ...]

    @property
    def scores(self) -> dict[str, float | None]:
        """The scores over all studies by the names of SCORES, 0..1; None for 0/0."""
        sums = self.counts.sum(0)
        values = {name: float(quotient.of(sums)) for name, quotient in SCORES.items()}
        return {name: None if np.isnan(value) else value for name, value in values.items()}

    def intervals(self, *, resamples: int = 1000, seed: int = 0) -> dict[str, Interval | None]:
        """Return the 95 % interval of each score by bootstrap over studies."""
        return {
            name: bootstrap_interval(self.counts, quotient.of, resamples=resamples, seed=seed)
            for name, quotient in SCORES.items()
        }

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON: scores, intervals, the counts summed over studies."""
        return {
            "studies": len(self.counts),
            "rare": list(self.rare),
            "scores": self.scores,
            "intervals": self.intervals(),
            "counts": dict(zip(COUNTS, self.counts.sum(0).tolist(), strict=True)),
        }


@dataclass(frozen=True)
class StatementTruth:
    """Ground truth of phantom studies: the statements of their reference reports, and whether each has a prior study.

    The grammar mentions every finding of an image and every resolved finding, with its severity and change: what a
    reference does not mention of these is not in the image. So its parse equals the annotation's `findings`, which need
    not be read. Only absence is mentioned irregularly: a finding that the reference does not
    mention counts as absent, as one does that it negates. None of this holds for other data than the phantom.
    """

    reports: tuple[ParsedReport, ...]
    first: tuple[bool, ...]
    rare: tuple[str, ...]

    @classmethod
    def of(cls, studies: Sequence[Study], training: Sequence[Study]) -> StatementTruth:
        """Read the truth of `studies`; which diseases are rare follows from the labels of `training`."""
        return cls(
            tuple(_parse(study.report) for study in studies),
            tuple(study.prior_id is None for study in studies),
            rare_diseases(np.array([study.labels for study in training])),
        )

    def score(self, reports: Sequence[str], retrieved: Sequence[Iterable[str]]) -> Statements:
        """Count the statements of `reports`, one per study; `retrieved`: the neighbours' reports of each.

        A statement gives a finding as positive, or gives its change in one of five ways (new,
        increased, decreased, unchanged, resolved). A finding is false where the image shows nothing of it: a subtle
        one, which a reference calls possible, is there. A false statement is copied if a neighbour's report makes it.

            change_right, _said, _true, _copied     pairs (finding, change): correct, reported, in the truth, copied
            first, first_with_change                study without a prior; does its report mention a change?
            severity_right, severity_told           correctly reported positive findings with a severity: it is correct; all
            rare_found, rare_true                   positive rare findings: reported; all
            finding_said, _false, _copied           findings reported as positive: all; false; copied
            finding_absent, _offered                findings absent in the image: all; positive in a neighbour's report

        Raises ValueError for another number of reports or neighbours than of studies.
        """
        if not len(reports) == len(retrieved) == len(self.reports):
            raise ValueError(
                f"expected reports and neighbours of {len(self.reports)} studies, got {len(reports)} and {len(retrieved)}"
            )
        rows = [
            self._count(row, _parse(report), [_parse(neighbour) for neighbour in neighbours])
            for row, (report, neighbours) in enumerate(zip(reports, retrieved, strict=True))
        ]
        counts = np.array([[row[name] for name in COUNTS] for row in rows], dtype=np.int64)
        return Statements(counts.reshape(len(rows), len(COUNTS)), self.rare)

    def _count(self, row: int, generated: ParsedReport, neighbours: Sequence[ParsedReport]) -> dict[str, int]:
        reference = self.reports[row]
        findings, positive = _findings(generated, State.POSITIVE), _findings(reference, State.POSITIVE)
        absent = set(DISEASES) - _findings(reference, State.POSITIVE, State.UNCERTAIN)
        changes, true_changes = _changes(generated), _changes(reference)
        offered = {name for parsed in neighbours for name in _findings(parsed, State.POSITIVE)} & absent
        offered_changes = {pair for parsed in neighbours for pair in _changes(parsed)} - true_changes
        graded = [name for name in findings & positive if reference.findings[name].severity is not None]
        right = [name for name in graded if generated.findings[name].severity == reference.findings[name].severity]
        rare = positive.intersection(self.rare)
        return {
            "change_right": len(changes & true_changes),
            "change_said": len(changes),
            "change_true": len(true_changes),
            "change_copied": len(changes & offered_changes),
            "first": int(self.first[row]),
            "first_with_change": int(self.first[row] and bool(changes)),
            "severity_right": len(right),
            "severity_told": len(graded),
            "rare_found": len(findings & rare),
            "rare_true": len(rare),
            "finding_said": len(findings),
            "finding_false": len(findings & absent),
            "finding_copied": len(findings & offered),
            "finding_absent": len(absent),
            "finding_offered": len(offered),
        }


def stated_changes(report: str) -> set[tuple[str, str]]:
    """Return (finding, change) of all mentions in `report` with a change, positive, possible or resolved."""
    return _changes(_parse(report))


def rare_diseases(states: np.ndarray) -> tuple[str, ...]:
    """Return the rarest third (4) of the 13 diseases, rarest first, by positives in training states (n, C >= 14)."""
    frequency = base_frequencies(states)
    return tuple(sorted(DISEASES, key=frequency.__getitem__)[: len(DISEASES) // 3])


_parse = lru_cache(maxsize=65536)(GrammarParser().parse)


def _findings(report: ParsedReport, *states: State) -> set[str]:
    """Return the diseases and devices that are in one of `states`."""
    return {name for name, reading in report.findings.items() if reading.state in states and name in DISEASES}


def _changes(report: ParsedReport) -> set[tuple[str, str]]:
    """Return (finding, change) of all mentions with a change, positive, possible or resolved."""
    return {(name, reading.change) for name, reading in report.findings.items() if reading.change is not None}

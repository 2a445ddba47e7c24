"""Findings that people labelled, as the reference of the classifier's probabilities and of generated reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from diffrgen.errors import DataError, reason_of
from diffrgen.evaluation.columns import IDS
from diffrgen.labels import FINDINGS, State
from diffrgen.metrics.auroc import Auroc, auroc
from diffrgen.metrics.bootstrap import Interval, bootstrap_interval
from diffrgen.metrics.clinical import f1_of_sums
from diffrgen.records.ids import id_text
from diffrgen.records.lines import DELIMITERS, delimited_rows

# Classes of NIH ChestX-ray14, as Open-i's human labels name them, that mean the same as a finding of CheXpert. Infiltration
# is a part of lung opacity; pleural thickening, fibrosis, emphysema and hernia have no finding of their own.
NIH_CLASSES: Mapping[str, str] = {"effusion": "pleural effusion", "mass": "lung lesion", "nodule": "lung lesion"}
FILE_IDS = (*IDS, "filename", "image index")
LEAST_POSITIVES = 20
VALUES = {"1": 1, "1.0": 1, "0": 0, "0.0": 0}
# Values that are not evaluated: uncertain, or not mentioned.
UNKNOWN = {"", "-", "-1", "-1.0", "nan"}


@dataclass(frozen=True)
class HumanLabels:
    """labels: by study id, then by finding, 1 or 0; findings: those that the file labels, in CheXpert's order."""

    path: Path
    findings: tuple[str, ...]
    labels: Mapping[str, Mapping[str, int]]

    def matrix(self, ids: Sequence[str]) -> np.ndarray:
        """Return the labels of studies as (n, F) float64, NaN if nothing is known.

        A study is found by its id, or by the part of its id before the first underscore: CXR12 for CXR12_IM-0345. Raises
        DataError if no study is found.
        """
        rows = [self.labels.get(name, self.labels.get(name.partition("_")[0], {})) for name in ids]
        if not any(rows):
            raise DataError(
                f"{self.path}: expected labels for studies such as {ids[0]!r}, got ids such as {next(iter(self.labels))!r}"
            )
        return np.array([[row.get(finding, np.nan) for finding in self.findings] for row in rows], dtype=np.float64)


@dataclass(frozen=True)
class HumanScores:
    """Against human labels: micro-F1 of the reports over `findings`, F1 of each, and of the classifier's probabilities the AUROC
    of each finding with at least 20 positive studies, and their mean; None if there are no probabilities.
    """

    studies: int
    findings: tuple[str, ...]
    micro_f1: float | None
    micro_f1_interval: Interval | None
    f1: dict[str, float | None]
    positives: dict[str, int]
    auroc: dict[str, Auroc] | None
    mean_auroc: float | None

    def to_dict(self) -> dict[str, Any]:
        """Return nested plain values for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        """Return the scores in words."""
        f1 = "undefined" if self.micro_f1 is None else f"{self.micro_f1:.3f}"
        words = f"micro-F1 {f1} over {len(self.findings)} findings of {self.studies} studies with human labels"
        if self.mean_auroc is not None:
            words += f", mean AUROC {self.mean_auroc:.3f} over {len(self.auroc or {})} findings"
        return words


def read_human_labels(path: Path) -> HumanLabels:
    """Read a CSV or TSV of a study a row: an id (id, study_id, filename, ...) and a column a finding, 1 or 0.

    Columns are findings by CheXpert's names or classes by NIH ChestX-ray14's, where they mean the same; others are left out.
    Of two classes of one finding (mass and nodule), one that is 1 makes the finding 1. Empty, "-" and -1 are not known.

    Raises DataError for a file that is not as above.
    """
    if path.suffix.lower() not in DELIMITERS:
        raise DataError(f"{path}: expected human labels as .csv or .tsv, got {path.suffix or 'no suffix'}")
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: expected human labels as UTF-8 text, got {reason_of(error)}") from error
    labels: dict[str, dict[str, int]] = {}
    columns: dict[str, str] = {}
    for line, row in delimited_rows(path, text):
        place = f"{path}, line {line}"
        columns = columns or {column: found for column in row if (found := _finding(column)) is not None}
        named = next((column for name in FILE_IDS for column in row if column.strip().lower() == name), None)
        if named is None or not columns:
            raise DataError(
                f"{place}: expected an id ({', '.join(FILE_IDS)}) and findings such as cardiomegaly, got {', '.join(row)}"
            )
        name = id_text(row[named]) or ""
        if name in labels:
            raise DataError(f"{place}: expected a study once, got {name!r} again")
        labels[name] = _labels(row, columns, place)
    if not labels:
        raise DataError(f"{path}: expected a row a study, got none")
    return HumanLabels(path, tuple(name for name in FINDINGS if name in columns.values()), labels)


def human_scores(
    labels: HumanLabels,
    ids: Sequence[str],
    states: np.ndarray,
    probabilities: Mapping[str, np.ndarray] | None = None,
    *,
    resamples: int = 1000,
) -> HumanScores:
    """Score reports with states (n, C >= 14), and P(positive) (n,) by finding where there are any, against human labels."""
    truth = labels.matrix(ids)  # (n, F)
    known = ~np.isnan(truth)
    claimed = np.stack([states[:, FINDINGS.index(name)] == State.POSITIVE for name in labels.findings], axis=1)
    present = truth == 1
    counts = np.stack([claimed & present, claimed & ~present, ~claimed & present], axis=1) & known[:, None]  # (n, 3, F)
    micro = counts.sum(axis=2)
    positives = dict(zip(labels.findings, present.sum(axis=0).tolist(), strict=True))
    areas = None
    if probabilities is not None:
        areas = {
            name: auroc(probabilities[name][known[:, f]], present[known[:, f], f], resamples=resamples)
            for f, name in enumerate(labels.findings)
            if name in probabilities and LEAST_POSITIVES <= positives[name] < known[:, f].sum()
        }
    return HumanScores(
        studies=int(known.any(axis=1).sum()),
        findings=labels.findings,
        micro_f1=_f1(micro),
        micro_f1_interval=bootstrap_interval(micro, f1_of_sums, resamples=resamples),
        f1={name: _f1(counts[:, :, f]) for f, name in enumerate(labels.findings)},
        positives=positives,
        auroc=areas,
        mean_auroc=float(np.mean([area.value for area in areas.values()])) if areas else None,
    )


def _f1(counts: np.ndarray) -> float | None:
    value = float(f1_of_sums(counts.sum(axis=0)))
    return None if np.isnan(value) else value


def _finding(column: str) -> str | None:
    name = column.strip().lower().replace("_", " ")
    name = NIH_CLASSES.get(name, name)
    return name if name in FINDINGS else None


def _labels(row: Mapping[str, str], columns: Mapping[str, str], place: str) -> dict[str, int]:
    found: dict[str, int] = {}
    for column, finding in columns.items():
        value = row[column].strip().lower()
        if value in UNKNOWN:
            continue
        if value not in VALUES:
            raise DataError(f"{place}: expected {column!r} to be 1, 0 or empty, got {row[column]!r:.40}")
        found[finding] = max(found.get(finding, 0), VALUES[value])
    return found

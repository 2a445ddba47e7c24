"""The limit of retrieval alone on a data set's reports, without images: the training reports most similar to each test report.

    python bench/nearest_report.py ANNOTATION.json --rules iu --output nearest.json

The query is the test report itself (cosine of TF-IDF vectors), which no system has: an upper bound for retrieval by image,
and a measure of how alike the reports are. States are read by the rule labeler on both sides.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from diffrgen.evaluation.baselines import most_frequent_report, random_training_reports
from diffrgen.evaluation.scoring import score_reports
from diffrgen.labels import DISEASES, RuleLabeler, State
from diffrgen.metrics import markdown_table
from diffrgen.records import read_annotation
from diffrgen.text import clean_report
from diffrgen.text.cleaning import Rules

NEIGHBOURS = (1, 5, 21)


@dataclass(frozen=True)
class Command:
    """Score the nearest training report of each test report, beside the blind baselines."""

    annotation: tyro.conf.Positional[Path]
    """An annotation.json; its images are not read."""
    rules: Rules = "mimic"
    """Cleaning rules of its reports."""
    output: Path | None = None
    """File for all figures as JSON."""


def tf_idf(texts: Sequence[str], vocabulary: Sequence[str], frequency: np.ndarray, count: int) -> np.ndarray:
    """Unit rows (n, V) of term frequency times log((1 + n) / (1 + document frequency))."""
    place = {word: column for column, word in enumerate(vocabulary)}
    rows = np.zeros((len(texts), len(vocabulary)), dtype=np.float32)
    for row, text in enumerate(texts):
        for word, times in Counter(text.split()).items():
            if word in place:
                rows[row, place[word]] = times
    rows *= np.log((1 + count) / (1 + frequency)).astype(np.float32)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def nearest(training: Sequence[str], queries: Sequence[str], count: int) -> np.ndarray:
    """The rows of the `count` training texts most like each query, (n, count), nearest first."""
    documents = Counter(word for text in training for word in set(text.split()))
    words = sorted(documents)
    frequency = np.array([documents[word] for word in words])
    mine, theirs = (tf_idf(texts, words, frequency, len(training)) for texts in (queries, training))
    return np.argsort(-(mine @ theirs.T), axis=1, kind="stable")[:, :count]


def covered(neighbours: np.ndarray, trained: np.ndarray, true: np.ndarray) -> dict[str, float]:
    """Of the test reports' positive diseases, the share that one of the first k neighbours has too, by k."""
    positive = true[:, : len(DISEASES)] == State.POSITIVE
    offered = trained[:, : len(DISEASES)][neighbours] == State.POSITIVE  # (n, 21, 13)
    return {f"of the first {k}": float(offered[:, :k].any(1)[positive].mean()) for k in NEIGHBOURS}


def main() -> None:
    """Run the command."""
    command = tyro.cli(Command)
    splits = read_annotation(command.annotation, check_files=False)
    training, test = ([clean_report(s.report, rules=command.rules) for s in part] for part in (splits.train, splits.test))
    neighbours = nearest(training, test, max(NEIGHBOURS))
    labeler = RuleLabeler()
    trained, true = labeler(training), labeler(test)
    reports = {
        "nearest training report (its text known)": [training[row] for row in neighbours[:, 0]],
        "blind: random training report": random_training_reports(training, len(test)),
        "blind: most frequent report": most_frequent_report(training, len(test)),
    }
    scores = {
        name: score_reports(said, test, labeler(said), true, labeler="rule", truth_from="rule")
        for name, said in reports.items()
    }
    coverage = covered(neighbours, trained, true)
    print(f"{len(training)} training and {len(test)} test reports\n")
    print(markdown_table({name: each.table_row() for name, each in scores.items()}))
    print(f"positive diseases of the test reports that a neighbour's report has too: {coverage}")
    if command.output is not None:
        content: dict[str, Any] = {name: each.to_dict() for name, each in scores.items()} | {"covered": coverage}
        command.output.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

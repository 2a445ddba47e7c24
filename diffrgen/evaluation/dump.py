"""Scores report files of any system."""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from diffrgen.errors import DataError
from diffrgen.evaluation.columns import ColumnOptions
from diffrgen.evaluation.options import ScoreOptions
from diffrgen.evaluation.predictions import Prediction, read_prediction_file, read_references, with_references
from diffrgen.evaluation.scoring import Scores, score_reports
from diffrgen.metrics import PairedDifference, paired_differences
from diffrgen.pipeline.labeler import NamedLabeler, make_labeler
from diffrgen.records import Study, read_annotation
from diffrgen.records.entry import is_empty_report
from diffrgen.staging import check_new_file, replace_file
from diffrgen.text import apply_protocol


@dataclass(frozen=True)
class Comparison:
    """Two files over the studies that both have: scores by file name, the first file's first, and first minus other."""

    scores: dict[str, Scores]
    differences: dict[str, PairedDifference]

    def to_dict(self) -> dict[str, Any]:
        """Return nested plain values for JSON: scores by file, and "differences"."""
        differences = {name: each.to_dict() for name, each in self.differences.items()}
        return {**{name: scores.to_dict() for name, scores in self.scores.items()}, "differences": differences}


def score_predictions(options: ScoreOptions) -> Scores:
    """Score a file of reports; states that the data do not contain are those of the labeler.

    Raises:
        DataError: an input file is unusable, ids do not match the split, or `output` exists or cannot be created.
    """
    if options.output is not None:
        check_new_file(options.output)
    scores = Scorer.of(options, _predictions(options)).score()
    _write(options, scores.to_dict())
    return scores


def compare_predictions(options: ScoreOptions) -> Comparison:
    """Score the file and that of `options.against` over the studies that both have, and their paired differences.

    Raises:
        DataError: as `score_predictions`, or the two files have no study in common.
    """
    if options.output is not None:
        check_new_file(options.output)
    assert options.against is not None
    columns = ColumnOptions(hypothesis_column=options.against_column, sections=options.columns.sections)
    others = read_prediction_file(options.against, columns)
    print(f"{options.against}: {'; '.join(map(str, others.choices))}")
    scorer, hypotheses = Scorer.of(options, _predictions(options)).beside(others.predictions, options)
    # Detects one file under two names.
    names = [options.predictions.name, options.against.name]
    if names[0] == names[1]:
        names[1] += " (against)"
    scores = dict(zip(names, (scorer.score(), scorer.score(hypotheses)), strict=True))
    first, other = scores.values()
    comparison = Comparison(scores, paired_differences(first.paired, other.paired))
    _write(options, comparison.to_dict())
    return comparison


@dataclass(frozen=True)
class Scorer:
    """Studies with their references, and how they are scored; labels (n, C): the references' states, None for no labels."""

    options: ScoreOptions
    labeler: NamedLabeler
    predictions: list[Prediction]
    references: list[str]
    labels: np.ndarray | None
    training: list[str] | None

    @classmethod
    def of(cls, options: ScoreOptions, predictions: list[Prediction]) -> Scorer:
        """Join predictions with their references; DataError if they do not match or there are none."""
        labeler = make_labeler(options.labeler, default="rule")
        training, labels = None, None
        if options.data is not None:
            splits = read_annotation(options.data, check_files=False, check_reports=False)
            predictions, labels = _joined(predictions, splits[options.split], options)
            training = [study.report for study in splits["train"] if not is_empty_report(study.report)]
        elif options.protocol.startswith("r2gen"):
            raise DataError(
                f"protocol {options.protocol} needs --data: rare words of its training reports become <unk>"
            )
        predictions, labels = _with_words(predictions, labels, options)
        return cls(options, labeler, predictions, _references(predictions, options), labels, training)

    def beside(self, others: list[Prediction], options: ScoreOptions) -> tuple[Scorer, list[str]]:
        """Return the studies that `others` have too, and their hypotheses, joined by id or, where no file has ids, by order."""
        if all(each.id is None for each in (*self.predictions, *others)):
            if len(others) != len(self.predictions):
                raise DataError(
                    f"{options.against}: expected {len(self.predictions)} reports, as neither file has ids, got {len(others)}"
                )
            return self, [each.hypothesis for each in others]
        by_id = {each.id: each.hypothesis for each in others if each.id is not None}
        rows = [row for row, each in enumerate(self.predictions) if each.id in by_id]
        print(
            f"studies in both files: {len(rows)}; only in the first: {len(self.predictions) - len(rows)}, "
            f"only in {options.against}: {len(others) - len(rows)}"
        )
        if not rows:
            raise DataError(f"{options.against}: expected studies of {options.predictions}, got no id of them")
        kept = replace(
            self,
            predictions=[self.predictions[row] for row in rows],
            references=[self.references[row] for row in rows],
            labels=None if self.labels is None else self.labels[rows],
        )
        return kept, [by_id[str(each.id)] for each in kept.predictions]

    def score(self, hypotheses: list[str] | None = None) -> Scores:
        """Score hypotheses, by default the predictions' own."""
        hypotheses = hypotheses or [prediction.hypothesis for prediction in self.predictions]
        generated, wanted = apply_protocol(self.options.protocol, hypotheses, self.references, training=self.training)
        truth = self.labeler(self.references) if self.labels is None else self.labels
        return score_reports(
            generated,
            wanted,
            self.labeler(hypotheses),
            truth,
            labeler=self.labeler.name,
            truth_from=self.labeler.name if self.labels is None else "data",
            radeval=self.options.radeval,
            texts=(hypotheses, self.references),
        )


def _write(options: ScoreOptions, content: dict[str, Any]) -> None:
    if options.output is not None:
        replace_file(options.output, (json.dumps(content, indent=2) + "\n").encode())


def _predictions(options: ScoreOptions) -> list[Prediction]:
    """Read the predictions, with the references of a file of their own; report which columns were chosen."""
    found = read_prediction_file(options.predictions, options.columns)
    choices = {options.predictions: found.choices}
    predictions = found.predictions
    if options.references is not None:
        others = read_references(options.references, options.columns)
        choices[options.references] = others.choices
        predictions = with_references(predictions, others.predictions, options.references)
    for path, chosen in choices.items():
        print(f"{path}: {'; '.join(map(str, chosen))}")
    return predictions


def _joined(
    predictions: list[Prediction], studies: tuple[Study, ...], options: ScoreOptions
) -> tuple[list[Prediction], np.ndarray | None]:
    """The predictions in the split's order with its references; its labels where every study has them."""
    by_id = {prediction.id: prediction for prediction in predictions}
    if options.against is not None:
        # Two files are compared over the studies that both have.
        studies = tuple(study for study in studies if study.id in by_id)
        by_id = {study.id: by_id[study.id] for study in studies}
    missing = [study.id for study in studies if study.id not in by_id]
    if not studies or missing or len(by_id) != len(studies):
        strange = sorted(str(name) for name in by_id if name not in {study.id for study in studies})
        raise DataError(
            f"{options.predictions}: expected the {len(studies)} studies of {options.data}, split {options.split}; "
            f"without a prediction: {missing[:3] or 'none'}, not in the split: {strange[:3] or 'none'}"
        )
    joined = [replace(by_id[study.id], reference=study.report) for study in studies]
    labels = [study.labels for study in studies if study.labels is not None]
    return joined, np.array(labels) if len(labels) == len(studies) else None


def _with_words(
    predictions: list[Prediction], labels: np.ndarray | None, options: ScoreOptions
) -> tuple[list[Prediction], np.ndarray | None]:
    """The predictions, and the rows of `labels`, of the studies whose reference has a word."""
    empty = [
        row for row, each in enumerate(predictions) if each.reference is not None and is_empty_report(each.reference)
    ]
    if not empty:
        return predictions, labels
    shown = ", ".join(repr(predictions[row].id or f"record {row + 1}") for row in empty[:3])
    what = f"{options.predictions}: {len(empty)} of {len(predictions)} references have no word ({shown})"
    if not options.skip_broken or len(empty) == len(predictions):
        raise DataError(f"{what}; correct them, or leave these studies out with --skip-broken")
    warnings.warn(f"{what}: these studies are left out of the scores", stacklevel=4)
    kept = sorted(set(range(len(predictions))) - set(empty))
    return [predictions[row] for row in kept], None if labels is None else labels[kept]


def _references(predictions: list[Prediction], options: ScoreOptions) -> list[str]:
    references = [prediction.reference for prediction in predictions if prediction.reference is not None]
    if len(references) != len(predictions):
        raise DataError(
            f"{options.predictions}: expected a reference in every record, or --data with references by id; "
            f"{len(predictions) - len(references)} of {len(predictions)} records have none"
        )
    return references

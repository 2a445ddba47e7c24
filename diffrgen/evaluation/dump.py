"""Scoring reports that any model wrote."""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import tyro

from diffrgen.errors import DataError
from diffrgen.evaluation.columns import ColumnOptions
from diffrgen.evaluation.predictions import Prediction, read_prediction_file, read_references, with_references
from diffrgen.evaluation.scoring import Scores, score_reports
from diffrgen.metrics import PublishedData
from diffrgen.pipeline.labeler import LabelerOptions, make_labeler
from diffrgen.records import Split, Study, read_annotation
from diffrgen.records.entry import is_empty_report
from diffrgen.text import Protocol, apply_protocol


@dataclass(frozen=True)
class ScoreOptions:
    """Score the reports of a file, whichever system generated them."""

    predictions: Path
    """JSON (a list, an object by id, or ReXrank's), JSON lines, CSV or TSV: a report a record, with an id or a reference
    or both; R2Gen's res.csv, a column without a header, is read too."""
    references: Path | None = None
    """File of the references in one of the same shapes, joined by id, or by order where neither file has ids."""
    data: Path | None = None
    """annotation.json with references by id, and labels where it brings them; default: the file's own references."""
    split: Split = "test"
    """Split of --data that the reports are for."""
    protocol: Protocol = "promptmrg"
    """Text handling that the language scores are computed after; the r2gen protocols need --data."""
    published: PublishedData | None = None
    """Show the paper's own rows for this data set beside."""
    radeval: tuple[str, ...] = ()
    """Metrics of the package radeval to compute too, such as radgraph; pip install "diffrgen[radeval]"."""
    skip_broken: bool = False
    """Leave out studies whose reference has no word, with their predictions, and say how many; otherwise they are an
    error that names them."""
    output: Path | None = None
    """File for the scores as JSON."""
    columns: tyro.conf.OmitArgPrefixes[ColumnOptions] = field(default_factory=ColumnOptions)
    labeler: tyro.conf.OmitArgPrefixes[LabelerOptions] = field(default_factory=LabelerOptions)

    def __post_init__(self) -> None:
        if self.references is not None and self.data is not None:
            raise DataError("--references and --data both bring the references; give one of them")


def score_predictions(options: ScoreOptions) -> Scores:
    """Score a dump; states that the data do not bring are read from the texts by the labeler.

    Raises:
        DataError: an input file is unusable, ids do not match the split, or `output` exists.
    """
    if options.output is not None and options.output.exists():
        raise DataError(f"{options.output}: needed a new file, got one that exists; choose another")
    labeler = make_labeler(options.labeler, default="rule")
    predictions = _predictions(options)
    training, labels = None, None
    if options.data is not None:
        splits = read_annotation(options.data, check_files=False, check_reports=False)
        studies = splits[options.split]
        predictions, labels = _joined(predictions, studies, options)
        training = [study.report for study in splits["train"] if not is_empty_report(study.report)]
    elif options.protocol.startswith("r2gen"):
        raise DataError(f"protocol {options.protocol} needs --data: rare words of its training reports become <unk>")
    predictions, labels = _with_words(predictions, labels, options)
    references = _references(predictions, options)
    hypotheses = [prediction.hypothesis for prediction in predictions]
    said, true = apply_protocol(options.protocol, hypotheses, references, training=training)
    truth, truth_from = (labeler(references), labeler.name) if labels is None else (labels, "data")
    scores = score_reports(
        said,
        true,
        labeler(hypotheses),
        truth,
        labeler=labeler.name,
        truth_from=truth_from,
        radeval=options.radeval,
    )
    if options.output is not None:
        options.output.write_text(json.dumps(scores.to_dict(), indent=2) + "\n", encoding="utf-8")
    return scores


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
    missing = [study.id for study in studies if study.id not in by_id]
    if missing or len(by_id) != len(studies):
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
    warnings.warn(f"{what}: these studies are left out of the scores", stacklevel=3)
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

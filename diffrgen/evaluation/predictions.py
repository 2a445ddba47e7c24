"""Reports that any model wrote, read from the file shapes that the field's code bases dump."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from diffrgen.errors import DataError
from diffrgen.records.json_text import parse_json

IDS = ("id", "study_id", "dicom_id", "image_id", "uid")
HYPOTHESES = ("hypothesis", "prediction", "generated", "candidate", "report", "res", "hyp")
REFERENCES = ("reference", "ground_truth", "target", "ref", "gts", "gt")


@dataclass(frozen=True)
class Prediction:
    """One study: its written report, and its id and reference where the file brings them."""

    id: str | None
    hypothesis: str
    reference: str | None


def read_predictions(path: Path) -> list[Prediction]:
    """Read a dump of written reports.

    JSON lines or a JSON list of objects, or CSV with a header: a column out of `HYPOTHESES` is needed, one out of `IDS`
    and one out of `REFERENCES` are taken where they are there. A JSON object maps ids to texts or to such objects.

    Raises:
        DataError: the file or a record is not as above, an id comes twice, or there is no record.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: expected predictions as UTF-8 JSON, JSON lines or CSV, got {error}") from error
    try:
        predictions = [_prediction(record, f"{path}, {place}") for place, record in _records(path, text)]
    except DataError:
        raise
    except (ValueError, csv.Error) as error:
        raise DataError(f"{path}: expected {path.suffix or 'JSON'} with a report a record, got {error}") from error
    if not predictions:
        raise DataError(f"{path}: expected at least one prediction, got none")
    ids = [prediction.id for prediction in predictions if prediction.id is not None]
    twice = next((name for name, count in Counter(ids).items() if count > 1), None)
    if twice is not None:
        raise DataError(f"{path}: expected one prediction a study, got id {twice!r} more than once")
    return predictions


def _records(path: Path, text: str) -> Iterable[tuple[str, object]]:
    """Each record with its place in words."""
    if path.suffix.lower() == ".csv":
        rows = csv.DictReader(text.splitlines(keepends=True))
        return [(f"line {rows.line_num}", row) for row in rows]
    if path.suffix.lower() == ".jsonl":
        lines = enumerate(text.splitlines(), start=1)
        return [(f"line {number}", parse_json(line)) for number, line in lines if line.strip()]
    content = parse_json(text)
    if isinstance(content, Mapping):
        return [
            (f"id {key!r}", {**value, "id": key} if isinstance(value, Mapping) else {"id": key, "report": value})
            for key, value in content.items()
        ]
    if not isinstance(content, list):
        raise DataError(f"{path}: expected a list or an object of predictions, got {type(content).__name__}")
    return [(f"record {number}", record) for number, record in enumerate(content, start=1)]


def _prediction(record: object, place: str) -> Prediction:
    if not isinstance(record, Mapping):
        raise DataError(f"{place}: expected an object with one of {', '.join(HYPOTHESES)}, got {type(record).__name__}")
    hypothesis = _field(record, HYPOTHESES, place)
    if hypothesis is None:
        raise DataError(
            f"{place}: expected one of {', '.join(HYPOTHESES)}, got {', '.join(map(str, record)) or 'nothing'}"
        )
    return Prediction(_field(record, IDS, place), hypothesis, _field(record, REFERENCES, place))


def _field(record: Mapping[str, object], names: Iterable[str], place: str) -> str | None:
    """The first of `names` that the record holds, as text."""
    name = next((name for name in names if record.get(name) is not None), None)
    if name is None:
        return None
    value = record[name]
    if isinstance(value, list) and len(value) == 1:
        value = value[0]  # R2Gen's and COCO's dumps hold a list of one text
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise DataError(f"{place}: expected {name!r} to be a text, got {value!r:.80}")
    return str(value)

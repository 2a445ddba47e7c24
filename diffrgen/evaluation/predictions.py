"""Reports that any model wrote, read from the file shapes that the field's code bases dump."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from diffrgen.errors import DataError
from diffrgen.records.ids import id_text
from diffrgen.records.json_text import parse_json
from diffrgen.records.lines import DELIMITERS, delimited_rows, text_lines

IDS = ("id", "study_id", "dicom_id", "image_id", "uid")
JSON_LINES = (".jsonl", ".ndjson")
HYPOTHESES = ("hypothesis", "prediction", "generated", "candidate", "caption", "report", "res", "hyp")
REFERENCES = ("reference", "ground_truth", "target", "ref", "gts", "gt")


@dataclass(frozen=True)
class Prediction:
    """One study: its written report, and its id and reference where the file brings them."""

    id: str | None
    hypothesis: str
    reference: str | None


def read_predictions(path: Path) -> list[Prediction]:
    """Read a dump of written reports.

    JSON lines (.jsonl, .ndjson) or a JSON list of objects, or CSV or TSV with a header: a column out of `HYPOTHESES` is
    needed, one out of `IDS` and one out of `REFERENCES` are taken where they are there. A JSON object maps ids to texts or
    to such objects, or is COCO's, with a list `annotations` of {image_id, caption}.

    Raises:
        DataError: the file or a record is not as above, an id comes twice, or there is no record.
    """
    try:
        # Not read_text, which makes every carriage return a line feed.
        text = path.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: expected predictions as UTF-8 JSON, JSON lines, CSV or TSV, got {error}") from error
    try:
        predictions = [_prediction(record, f"{path}, {place}") for place, record in _records(path, text)]
    except DataError:
        raise
    except ValueError as error:
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
    suffix = path.suffix.lower()
    if suffix in DELIMITERS:
        return [(f"line {line}", row) for line, row in delimited_rows(path, text)]
    if suffix in JSON_LINES:
        lines = enumerate(text_lines(text), start=1)
        return [(f"line {number}", _parse(line, f"{path}, line {number}")) for number, line in lines if line.strip()]
    content = parse_json(text)
    if isinstance(content, Mapping) and isinstance(content.get("annotations"), list):
        # COCO counts annotations by `id` and names what they are of by `image_id`.
        content = [
            {**record, "id": record.get("image_id")} if isinstance(record, Mapping) else record
            for record in content["annotations"]
        ]
    if isinstance(content, Mapping):
        return [
            (f"id {key!r}", {**value, "id": key} if isinstance(value, Mapping) else {"id": key, "report": value})
            for key, value in content.items()
        ]
    if not isinstance(content, list):
        raise DataError(f"{path}: expected a list or an object of predictions, got {type(content).__name__}")
    return [(f"record {number}", record) for number, record in enumerate(content, start=1)]


def _parse(line: str, place: str) -> object:
    try:
        return parse_json(line)
    except ValueError as error:
        raise DataError(f"{place}: expected a JSON object, got {error}") from error


def _prediction(record: object, place: str) -> Prediction:
    if not isinstance(record, Mapping):
        raise DataError(f"{place}: expected an object with one of {', '.join(HYPOTHESES)}, got {type(record).__name__}")
    name = next((name for name in HYPOTHESES if name in record), None)
    if name is None:
        raise DataError(
            f"{place}: expected one of {', '.join(HYPOTHESES)}, got {', '.join(map(str, record)) or 'nothing'}"
        )
    if record[name] is None:
        raise DataError(
            f"{place}: expected {name!r} to be a text, got null; leave the record out, or give an empty text for a report "
            "without a word"
        )
    hypothesis, reference = _text(record[name], name, place), _field(record, REFERENCES)
    return Prediction(_id(record, place), hypothesis, None if reference is None else _text(record[reference], reference, place))


def _id(record: Mapping[str, object], place: str) -> str | None:
    name = _field(record, IDS)
    if name is None:
        return None
    value = record[name]
    text = id_text(value[0] if isinstance(value, list) and len(value) == 1 else value)
    if text is None:
        raise DataError(f"{place}: expected {name!r} to be a text or an integer, got {value!r:.80}")
    return text


def _field(record: Mapping[str, object], names: Iterable[str]) -> str | None:
    """The first of `names` that the record holds a value for."""
    return next((name for name in names if record.get(name) is not None), None)


def _text(value: object, name: str, place: str) -> str:
    if isinstance(value, list) and len(value) == 1:
        value = value[0]  # R2Gen's and COCO's dumps hold a list of one text
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise DataError(f"{place}: expected {name!r} to be a text, got {value!r:.80}")
    return str(value)

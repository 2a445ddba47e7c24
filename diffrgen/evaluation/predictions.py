"""Reports that any model generated, from the file shapes of the field's code bases."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from diffrgen.errors import DataError, reason_of
from diffrgen.evaluation.columns import (
    HYPOTHESES,
    REFERENCE_SECTIONS,
    REPORT,
    SECTIONS,
    Choice,
    ColumnOptions,
    Columns,
    Sections,
    choose_columns,
    choose_reference,
    has_header,
    joined_text,
)
from diffrgen.records.ids import id_text
from diffrgen.records.json_text import parse_json
from diffrgen.records.lines import DELIMITERS, delimited_rows, first_row, text_lines

JSON_LINES = (".jsonl", ".ndjson")
Chooser = Callable[[Mapping[str, object], ColumnOptions, str], Choice]


@dataclass(frozen=True)
class Prediction:
    """One study: its generated report, and its id and reference if the file contains them."""

    id: str | None
    hypothesis: str
    reference: str | None


@dataclass(frozen=True)
class PredictionFile:
    """The predictions of a file, and the columns that they were taken from: one choice for each kind of record."""

    predictions: list[Prediction]
    choices: tuple[Choice, ...]


def read_predictions(path: Path) -> list[Prediction]:
    """Return the predictions of `read_prediction_file` with columns chosen by name."""
    return read_prediction_file(path).predictions


def read_prediction_file(path: Path, columns: ColumnOptions | None = None) -> PredictionFile:
    """Read a file of generated reports.

    JSON lines (.jsonl, .ndjson) or a JSON list of objects, or CSV or TSV. A JSON object maps ids to texts or to such
    objects (ReXrank), or is COCO's, with a list `annotations` of {image_id, caption}. A table of one column without a
    known name has no header (R2Gen's res.csv). `ColumnOptions` selects the fields.

    Raises:
        DataError: the file or a record is not as above, two fields qualify, an id comes twice, or there is no record.
    """
    return _read(path, columns or ColumnOptions(), choose_columns)


def read_references(path: Path, columns: ColumnOptions | None = None) -> PredictionFile:
    """Read a file of references alone, in the shapes of `read_prediction_file`; the hypotheses returned are empty.

    Raises DataError as `read_prediction_file` does.
    """
    return _read(path, columns or ColumnOptions(), choose_reference)


def with_references(predictions: list[Prediction], references: list[Prediction], path: Path) -> list[Prediction]:
    """Return `predictions` with the references of another file, joined by id, or by order where neither has ids.

    Raises DataError if they do not belong together; `path` is that of the references.
    """
    if all(each.id is None for each in (*predictions, *references)):
        if len(predictions) != len(references):
            raise DataError(f"{path}: expected a reference for each of {len(predictions)} reports, got {len(references)}")
        return [replace(one, reference=other.reference) for one, other in zip(predictions, references, strict=True)]
    by_id = {each.id: each.reference for each in references}
    missing = [each.id for each in predictions if each.id is None or each.id not in by_id]
    if missing:
        raise DataError(
            f"{path}: expected a reference for the id of every generated report, got none for {len(missing)}, such as "
            f"{missing[0] or 'a report without an id'}"
        )
    return [replace(each, reference=by_id[each.id]) for each in predictions]


def _read(path: Path, columns: ColumnOptions, choose: Chooser) -> PredictionFile:
    try:
        # Not read_text, which converts carriage returns to line feeds.
        text = path.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: expected predictions as UTF-8 JSON, JSON lines, CSV or TSV, got {reason_of(error)}") from error
    choices: dict[Choice, None] = {}
    predictions = []
    try:
        for where, record in _records(path, text, columns):
            place = f"{path}, {where}"
            if not isinstance(record, Mapping):
                names = ", ".join((*HYPOTHESES, REPORT))
                raise DataError(f"{place}: expected an object with one of {names}, got {type(record).__name__}")
            choice = choose(record, columns, place)
            choices[choice] = None
            predictions.append(_prediction(record, choice, place))
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
    return PredictionFile(predictions, tuple(choices))


def _records(path: Path, text: str, columns: ColumnOptions) -> Iterable[tuple[str, object]]:
    """Each record with its place in words."""
    suffix = path.suffix.lower()
    if suffix in DELIMITERS:
        header = None if has_header(first_row(path, text), columns) else (REPORT,)
        return [(f"line {line}", row) for line, row in delimited_rows(path, text, header=header)]
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
            (f"id {key!r}", {**value, "id": key} if isinstance(value, Mapping) else {"id": key, REPORT: value})
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


def _prediction(record: Mapping[str, object], choice: Choice, place: str) -> Prediction:
    hypothesis = _joined(record, choice.hypothesis, choice.sections, place) if choice.hypothesis else ""
    if hypothesis is None:
        raise DataError(
            f"{place}: expected {' + '.join(map(repr, choice.hypothesis))} to be a text, got null; leave the record out, or "
            "give an empty text for a report without a word"
        )
    reference = _joined(record, choice.reference, choice.sections, place)
    return Prediction(_id(record, choice.id, place), hypothesis, reference)


def _joined(record: Mapping[str, object], names: Columns, sections: Sections | None, place: str) -> str | None:
    """The texts of these fields, joined; None if every one is null."""
    given = [name for name in names if not _is_null(record[name], name)]
    return joined_text([_text(record[name], name, place) for name in given], sections) if given else None


def _is_null(value: object, name: str) -> bool:
    """Whether a field holds nothing; pandas, and so ReXrank's file, writes NaN for a section that is absent."""
    section = name in (*SECTIONS, *REFERENCE_SECTIONS)
    return value is None or (section and isinstance(value, float) and math.isnan(value))


def _id(record: Mapping[str, object], name: str | None, place: str) -> str | None:
    if name is None:
        return None
    value = record[name]
    text = id_text(value[0] if isinstance(value, list) and len(value) == 1 else value)
    if text is None:
        raise DataError(f"{place}: expected {name!r} to be a text or an integer, got {value!r:.80}")
    return text


def _text(value: object, name: str, place: str) -> str:
    if isinstance(value, list) and len(value) == 1:
        value = value[0]  # R2Gen's and COCO's dumps hold a list of one text
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise DataError(f"{place}: expected {name!r} to be a text, got {value!r:.80}")
    return str(value)

"""A ReXrank file of studies made into an annotation file.

Source of its fields: rajpurkarlab/ReXrank, example_files/prediction.json.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from diffrgen.errors import DataError
from diffrgen.preparation.archive import Archive
from diffrgen.preparation.collected import CollectedStudy, age_years, field_text, sex_of, single_spaced
from diffrgen.preparation.collection import ImageSource, plain_options, write_collection
from diffrgen.preparation.json_stream import json_members
from diffrgen.preparation.options import ReXrankInputOptions
from diffrgen.preparation.summary import Summary
from diffrgen.preparation.views import ViewedImage
from diffrgen.records import Sections, Split
from diffrgen.records.annotation import SPLIT_ALIASES

NO_IMAGES = r"(?!)"
# "Age:50-60.Gender:F.Indication: Cough.Comparison: None."
CONTEXT = re.compile(r"\b(Age|Gender|Indication|Comparison)\s*:")
REPORT = re.compile(r"\b(Findings|Impression)\s*:")


def prepare_rexrank(options: ReXrankInputOptions, *, progress: bool = False) -> Summary:
    """Write annotation.json and summary.json to `options.out` and return the summary; see `write_collection`.

    Image paths lose the slash that they begin with. A record without a split is in test, one without a subject a patient of its
    own. No record has a date, so that no study has a prior. DataError names the file, the study and what came.
    """
    file = _file(options)
    summary = Summary("rexrank", plain_options(options))
    summary.files["studies"] = file.name
    if options.unpack or options.check_images:
        raise DataError(f"{file}: expected no --unpack and no --check-images, for ReXrank's files come without images")

    def studies() -> Iterator[CollectedStudy]:
        return (_study(name, record, f"{file}: study {name}") for name, record in json_members(file))

    return write_collection(studies, ImageSource(None, None), options, summary, progress=progress)


def _file(options: ReXrankInputOptions) -> Path:
    if options.archive.is_file():
        return options.archive
    found = Archive.scan(options.archive, without=options.out, closed=NO_IMAGES).ending(".json")
    if len(found) != 1:
        raise DataError(f"{options.archive}: needed one ReXrank file (*.json), got {len(found)}; name the file itself")
    return found[0]


def _study(name: str, record: object, place: str) -> CollectedStudy:
    if not isinstance(record, dict):
        raise DataError(f"{place}: expected an object with image_path, got {type(record).__name__}")
    paths, views = record.get("image_path"), record.get("frontal_lateral")
    paths = [paths] if isinstance(paths, str) else paths
    if not isinstance(paths, list) or not all(isinstance(path, str) for path in paths):
        raise DataError(f"{place}: expected image_path as a list of paths, got {paths!r:.80}")
    named = views if isinstance(views, list) and len(views) == len(paths) else [""] * len(paths)
    context = _parts(CONTEXT, field_text(record, "context", place))
    return CollectedStudy(
        id=name,
        patient=field_text(record, "subject_id", place) or name,
        split=_split(record, place),
        images=tuple(ViewedImage(path.lstrip("/"), str(view).upper()) for path, view in zip(paths, named, strict=True)),
        sections=_sections(record, context, place),
        age=age_years(context.get("age")),
        sex=sex_of(context.get("gender")),
    )


def _sections(record: Mapping[str, Any], context: Mapping[str, str], place: str) -> Sections:
    """Return the sections; findings and impression from their own fields, else from the report, whose headings name them."""
    own = {name: single_spaced(field_text(record, f"section_{name}", place)) for name in ("findings", "impression")}
    report = _parts(REPORT, field_text(record, "report", place))
    sections = Sections(indication=context.get("indication", ""), comparison=context.get("comparison", ""))
    return replace(sections, **{name: text or report.get(name, "") for name, text in own.items()})


def _parts(headings: re.Pattern[str], text: str) -> dict[str, str]:
    """Return the text behind each heading, by its name in lower case, without the full stop that ends age and gender.

    >>> _parts(CONTEXT, "Age:50.Gender:F.Indication: Cough. Fever.Comparison: None.")
    {'age': '50', 'gender': 'F', 'indication': 'Cough. Fever.', 'comparison': 'None.'}
    """
    _, *split = headings.split(text)
    found = {name.lower(): single_spaced(part) for name, part in zip(split[::2], split[1::2], strict=True)}
    return {name: part.rstrip(".") if name in ("age", "gender") else part for name, part in found.items()}


def _split(record: Mapping[str, Any], place: str) -> Split:
    name = field_text(record, "split", place).strip().lower() or "test"
    if name not in SPLIT_ALIASES:
        raise DataError(f"{place}: expected a split out of train, val, test, got {name!r}")
    return SPLIT_ALIASES[name]

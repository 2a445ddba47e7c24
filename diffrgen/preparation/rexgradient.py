"""ReXGradient-160K, as its host ships it, made into an annotation file.

Source of the names of its fields and files: the data card rajpurkarlab/ReXGradient-160K, and aehrc/cxrmate-2's preparation.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from diffrgen.errors import DataError
from diffrgen.preparation.archive import Archive
from diffrgen.preparation.collected import CollectedStudy, age_years, day_of, field_text, sex_of, single_spaced
from diffrgen.preparation.collection import ImageSource, plain_options, write_collection
from diffrgen.preparation.json_stream import json_members
from diffrgen.preparation.options import RexGradientOptions
from diffrgen.preparation.packed_images import TarredImages, numbered_parts
from diffrgen.preparation.summary import Summary
from diffrgen.preparation.table import read_table
from diffrgen.preparation.views import ViewedImage
from diffrgen.records import Sections, Split

SPLIT_NAMES: dict[Split, str] = {"train": "train", "val": "valid", "test": "test"}
FOLDER = "deid_png"
FIELDS = ("id", "PatientID", "StudyDate", "Findings", "Impression", "ImagePath")
MORE_FIELDS = ("PatientSex", "PatientAge", "Indication", "Comparison")
VIEWS = "ImageViewPosition"
Row = Mapping[str, Any]


def prepare_rexgradient(options: RexGradientOptions, *, progress: bool = False) -> Summary:
    """Write annotation.json and summary.json to `options.out` and return the summary; see `write_collection`.

    Image paths begin with deid_png/. Each split is read from its metadata with view positions (JSON), else from its table
    (CSV), which has no views. DataError names the file, what was needed and what came.
    """
    archive = Archive.scan(options.archive, without=options.out, closed=FOLDER)
    summary = Summary("rexgradient", plain_options(options))
    files = {split: _metadata(archive, name) for split, name in SPLIT_NAMES.items()}
    for split, file in files.items():
        summary.files[split] = archive.relative(file)
    parts = [file for name, places in archive.files.items() if name.startswith(f"{FOLDER}.part") for file in places]
    packed = TarredImages(numbered_parts(parts), _image_name) if parts else None
    folder = archive.patient_roots[0] if archive.patient_roots else None
    summary.files["images"] = "images" if options.unpack else archive.relative(folder)
    if any(file.suffix == ".csv" for file in files.values()):
        summary.notes.append("the views are unknown: they are in *_metadata_view_position.json")

    def studies() -> Iterator[CollectedStudy]:
        for split, file in files.items():
            yield from _studies(file, split)

    return write_collection(studies, ImageSource(folder, packed), options, summary, progress=progress)


def _metadata(archive: Archive, split: str) -> Path:
    names = (f"{split}_metadata_view_position.json", f"{split}_metadata.csv", f"{split}_metadata.csv.gz")
    return archive.need(names, f"ReXGradient's metadata of the split {split}")


def _studies(file: Path, split: Split) -> Iterator[CollectedStudy]:
    for name, row in _json_rows(file) if file.suffix == ".json" else _table_rows(file):
        place = f"{file}: study {name}"
        day = day_of(field_text(row, "StudyDate", place))
        yield CollectedStudy(
            id=name,
            patient=field_text(row, "PatientID", place),
            split=split,
            images=tuple(_images(row, place)),
            sections=Sections(
                findings=single_spaced(field_text(row, "Findings", place)),
                impression=single_spaced(field_text(row, "Impression", place)),
                indication=single_spaced(field_text(row, "Indication", place)),
                comparison=single_spaced(field_text(row, "Comparison", place)),
            ),
            order=day,
            day=day,
            age=age_years(field_text(row, "PatientAge", place)),
            sex=sex_of(field_text(row, "PatientSex", place)),
        )


def _json_rows(file: Path) -> Iterator[tuple[str, Row]]:
    for name, row in json_members(file):
        if not isinstance(row, dict) or not all(field in row for field in ("PatientID", "Findings", "ImagePath")):
            got = ", ".join(row)[:200] if isinstance(row, dict) else type(row).__name__
            raise DataError(f"{file}: study {name}: expected an object with PatientID, Findings and ImagePath, got {got}")
        yield name, row


def _table_rows(file: Path) -> Iterator[tuple[str, Row]]:
    names = (*FIELDS, *MORE_FIELDS)
    for values in read_table(file, FIELDS, optional=MORE_FIELDS):
        row = dict(zip(names, values, strict=True))
        yield row["id"], {**row, "ImagePath": _listed(row["ImagePath"], file)}


def _listed(text: str, file: Path) -> list[str]:
    """Return the paths of a list as tables hold it, ['a', 'b'], or of a single path."""
    if not text.startswith("["):
        return [text] if text else []
    try:
        paths = ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError) as error:
        raise DataError(f"{file}: expected ImagePath as a list of paths, got {text[:80]!r}") from error
    if not all(isinstance(path, str) for path in paths):
        raise DataError(f"{file}: expected ImagePath as a list of paths, got {text[:80]!r}")
    return list(paths)


def _images(row: Row, place: str) -> Iterator[ViewedImage]:
    paths, views = row["ImagePath"], row.get(VIEWS) or []
    if not isinstance(paths, list) or not all(isinstance(path, str) for path in paths):
        raise DataError(f"{place}: expected ImagePath as a list of paths, got {paths!r:.80}")
    if not isinstance(views, list) or (views and len(views) != len(paths)):
        raise DataError(f"{place}: expected {VIEWS} as a list of {len(paths)} views, got {views!r:.80}")
    for number, path in enumerate(paths):
        view = single_spaced(str(views[number] or "")) if views else ""
        yield ViewedImage(_image_name(path), "" if view.upper() == "UNKNOWN" else view.upper())


def _image_name(path: str) -> str:
    """Return the path from deid_png/ on: the tables begin with ../, members of the tar file may with ./."""
    before, found, after = path.partition(f"{FOLDER}/")
    return found + after if found and before.strip("./") == "" else path

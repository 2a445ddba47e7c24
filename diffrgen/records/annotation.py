"""R2Gen's annotation file and PromptMRG's variants of it, read into studies and checked."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffrgen.errors import DataError
from diffrgen.records.json_text import parse_json
from diffrgen.records.location import FileListing, images_folder
from diffrgen.records.priors import link_priors
from diffrgen.records.reader import RecordReader
from diffrgen.records.skip import without_images
from diffrgen.records.study import SPLITS, Split, StudySplits
from diffrgen.records.view_index import index_beside, read_view_index
from diffrgen.records.views import ViewChoice

SPLIT_ALIASES: dict[str, Split] = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validate", "validation", "dev", "development"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}


def read_annotation(
    path: str | Path,
    *,
    images: str | Path | None = None,
    skip_broken: bool = False,
    check_files: bool = True,
    check_reports: bool = True,
    views: ViewChoice = "all",
    view_index: Path | None = None,
) -> StudySplits:
    """Return the studies of the annotation file `path`, each record checked.

    The file is R2Gen's `{"train": [...], "val": [...], "test": [...]}` (val and test may be absent), or a
    flat list of records, which becomes the test split (PromptMRG's IU X-Ray file). A record holds `id`,
    `report`, `image_path` (a path or a list of at most 4) and optionally `labels` (14 or 18 states 0..3),
    `patient_id`, `days` or `study_date`, `view` (of the first image) or `views` (of each image; see `view_kind`),
    `prior_id`, and the sections of the report as texts (`findings`, `impression`, `indication`, `history`,
    `comparison`, `technique`).

    images: the folder of the image paths; default `images/` beside the file, else the file's folder.
    skip_broken: leave out missing images, records with no image left or with too many, and those with a report without a
        letter ("", "___", null, NaN), of any split, and say so in `skipped_images` and `skipped`; otherwise they are an
        error, as it is when no record is left. Anything else that is wrong is an error either way, such as an image of
        another patient.
    views: which images of a study are used; the others are neither looked for nor checked.
    view_index: a table of views for records without `views` (see `read_view_index`); default: IMAGES_index.csv beside
        the images folder, where there is one.
    check_files: look whether each image file exists (`diffrgen.images.check_images`: whether it can be read).
    check_reports: off: a report without a letter is accepted.

    Where no record has `prior_id`, priors follow from `patient_id` and `days` within each split. DataError
    names the file and the record, by split, position from 0 and id.
    """
    source = Path(path)
    root = images_folder(source, None if images is None else Path(images))
    index = view_index or index_beside(root)
    reader = RecordReader(
        source,
        root,
        FileListing(root) if check_files else None,
        check_reports,
        views=views,
        kinds={} if index is None else read_view_index(index),
        skip_broken=skip_broken,
    )
    parts = {split: reader.studies(split, records) for split, records in _splits(source).items()}
    if reader.faults and not (skip_broken and any(parts.values())):
        raise DataError(reader.report_faults())
    if not reader.has_prior_ids:
        parts = {split: link_priors(studies) for split, studies in parts.items()}
    splits = StudySplits(source, parts["train"], parts["val"], parts["test"], tuple(reader.faults), tuple(reader.image_faults))
    if skip_broken:
        splits = without_images(splits, {})
    _check_priors(splits)
    return splits


def _splits(source: Path) -> dict[Split, list[Any]]:
    """Return the records of each split of the JSON file `source`; DataError if its shape is another."""
    content = _load(source)
    if isinstance(content, list):
        return {"train": [], "val": [], "test": content}
    if not isinstance(content, Mapping):
        raise DataError(f"{source}: expected an object with train, val, test or a list, got {type(content).__name__}")
    _check_names(content, source)
    if "train" not in content:
        keys = ", ".join(map(repr, list(content)[:10])) or "none"
        raise DataError(f"{source}: an annotation needs the key 'train', got the keys: {keys}")
    splits: dict[Split, list[Any]] = {split: content.get(split, []) for split in SPLITS}
    for split, records in splits.items():
        if not isinstance(records, list):
            raise DataError(f"{source}: '{split}' must be a list of records, got {type(records).__name__}")
    return splits


def _check_names(content: Mapping[str, Any], source: Path) -> None:
    """Refuse a split under another name, such as "valid" or "Test"; warn of any other list of records."""
    for key, value in content.items():
        if key in SPLITS:
            continue
        meant = SPLIT_ALIASES.get(key.strip().lower())
        if meant is not None:
            raise DataError(f"{source}: expected the splits {', '.join(SPLITS)}, got {key!r}; rename it to {meant!r}")
        if isinstance(value, list) and any(isinstance(record, Mapping) for record in value):
            warnings.warn(
                f"{source}: {len(value)} record(s) of {key[:40]!r} are not used: the splits are {', '.join(SPLITS)}",
                stacklevel=4,
            )


def _load(source: Path) -> object:
    if not source.is_file():
        what = "is a folder" if source.is_dir() else "does not exist"
        raise DataError(f"expected an annotation file (JSON), got {source}, which {what}")
    try:
        return parse_json(source.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise DataError(f"{source} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise DataError(f"{source} is not a JSON file: {error}") from error


def _check_priors(splits: StudySplits) -> None:
    ids = {study.id for study in splits}
    for study in splits:
        if study.prior_id is not None and (study.prior_id == study.id or study.prior_id not in ids):
            raise DataError(
                f"{splits.source}: {study.split} record with id {study.id!r}: 'prior_id' must name "
                f"another study of the file, got {study.prior_id!r}; remove the field or add that study"
            )

"""Kaggle's tables of IU X-Ray: indiana_reports.csv and indiana_projections.csv, joined by `uid`."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from diffrgen.errors import DataError
from diffrgen.preparation.archive import Archive
from diffrgen.preparation.iu_study import IuStudy, study_number
from diffrgen.preparation.openi import image_key
from diffrgen.preparation.table import read_table
from diffrgen.preparation.views import ViewedImage
from diffrgen.records import Sections

REPORTS = ("indiana_reports.csv", "indiana_reports.csv.gz")
PROJECTIONS = ("indiana_projections.csv", "indiana_projections.csv.gz")
PROJECTION_NAMES = ("Frontal", "Lateral")
NEEDED, OPTIONAL = ("findings", "impression"), ("indication", "comparison")


def read_kaggle(reports: Path, projections: Path | None) -> list[IuStudy]:
    """Return the studies of Kaggle's two tables, by number; a study without projections, or with None, has no image.

    DataError names the file for a `uid` that is no number or is there twice.
    """
    images: defaultdict[str, list[ViewedImage]] = defaultdict(list)
    for uid, name, view in () if projections is None else _projections(projections):
        images[uid].append(ViewedImage(name, view))
    studies: dict[str, IuStudy] = {}
    for uid, *texts in read_table(reports, ("uid", *NEEDED), optional=OPTIONAL, ids=("uid",)):
        if study_number(uid) != uid or uid in studies:
            raise DataError(f"{reports}: expected a number as uid, each once, got {uid!r}")
        sections = {name: " ".join(text.split()) for name, text in zip((*NEEDED, *OPTIONAL), texts, strict=True)}
        studies[uid] = IuStudy(uid, Sections(**sections), tuple(images.pop(uid, ())))
    if images:
        assert projections is not None
        uid = min(images)
        raise DataError(f"{projections}: expected images of the studies in {reports.name} only, got uid {uid!r}")
    return sorted(studies.values(), key=lambda study: int(study.number))


def read_views(archive: Archive) -> dict[str, str]:
    """Return the view, Frontal or Lateral, of each image by `image_key`; empty without indiana_projections.csv."""
    path = archive.find(PROJECTIONS)
    return {} if path is None else {image_key(name): view for _, name, view in _projections(path)}


def _projections(path: Path) -> list[tuple[str, ...]]:
    rows = list(read_table(path, ("uid", "filename", "projection"), ids=("uid",)))
    for uid, name, view in rows:
        if view not in PROJECTION_NAMES:
            raise DataError(f"{path}: uid {uid}, {name}: expected Frontal or Lateral, got {view!r}")
    return rows

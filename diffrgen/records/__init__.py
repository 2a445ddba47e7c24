"""Studies of a data set: read from an annotation file."""

from __future__ import annotations

from diffrgen.records.annotation import read_annotation
from diffrgen.records.priors import link_priors
from diffrgen.records.sections import NO_SECTIONS, SECTION_NAMES, Sections
from diffrgen.records.skip import without_images
from diffrgen.records.study import SPLITS, Split, Study, StudySplits
from diffrgen.records.views import MAX_VIEWS, VIEW_KINDS, ViewChoice, ViewKind, main_view, view_kind

__all__ = [
    "MAX_VIEWS",
    "NO_SECTIONS",
    "SECTION_NAMES",
    "SPLITS",
    "VIEW_KINDS",
    "Sections",
    "Split",
    "Study",
    "StudySplits",
    "ViewChoice",
    "ViewKind",
    "link_priors",
    "main_view",
    "read_annotation",
    "view_kind",
    "without_images",
]

"""Studies of a data set: read from an annotation file."""

from __future__ import annotations

from diffrgen.records.annotation import read_annotation
from diffrgen.records.priors import link_priors
from diffrgen.records.skip import without_images
from diffrgen.records.study import SPLITS, Split, Study, StudySplits

__all__ = [
    "SPLITS",
    "Split",
    "Study",
    "StudySplits",
    "link_priors",
    "read_annotation",
    "without_images",
]

"""Studies of a data set: read from an annotation file or from a folder of images."""

from __future__ import annotations

from diffrgen.records.annotation import read_annotation
from diffrgen.records.folder import IMAGE_SUFFIXES, read_folder
from diffrgen.records.priors import link_priors
from diffrgen.records.skip import without_images
from diffrgen.records.study import SPLITS, Split, Study, StudySplits

__all__ = [
    "IMAGE_SUFFIXES",
    "SPLITS",
    "Split",
    "Study",
    "StudySplits",
    "link_priors",
    "read_annotation",
    "read_folder",
    "without_images",
]

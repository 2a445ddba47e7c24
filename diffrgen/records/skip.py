"""Leaving broken studies out of a data set, counted and with their reasons."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from diffrgen.records.study import SPLITS, Study, StudySplits


def without_images(splits: StudySplits, faults: Mapping[Path, str]) -> StudySplits:
    """Return `splits` without the images of `faults` (path -> reason) and the studies that have no other.

    The reasons are added to `skipped_images` and to `skipped`. A study whose prior is left out keeps its place and loses
    its `prior_id`.
    """
    skipped, skipped_images = list(splits.skipped), list(splits.skipped_images)
    kept: dict[str, list[Study]] = {split: [] for split in SPLITS}
    for study in splits:
        reason = next((faults[path] for path in study.images if path in faults), None)
        left = {path: kind for path, kind in zip(study.images, study.views, strict=True) if path not in faults}
        if left:
            study = replace(study, images=tuple(left), views=tuple(left.values())) if reason else study
            kept[study.split].append(study)
        if reason is not None:
            (skipped_images if left else skipped).append(f"{study.split} (id {study.id!r}): {reason}")
    ids = {study.id for studies in kept.values() for study in studies}
    parts = {split: tuple(_known_prior(study, ids) for study in kept[split]) for split in SPLITS}
    return StudySplits(splits.source, parts["train"], parts["val"], parts["test"], tuple(skipped), tuple(skipped_images))


def _known_prior(study: Study, ids: set[str]) -> Study:
    return study if study.prior_id is None or study.prior_id in ids else replace(study, prior_id=None)

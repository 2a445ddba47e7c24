"""Leaving broken studies out of a data set, counted and with their reasons."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from diffrgen.records.study import SPLITS, Study, StudySplits


def without_images(splits: StudySplits, faults: Mapping[Path, str]) -> StudySplits:
    """Return `splits` without the studies that hold an image of `faults` (path -> reason), added to
    `skipped`.

    A study whose prior is left out keeps its place and loses its `prior_id`.
    """
    skipped = list(splits.skipped)
    kept: dict[str, list[Study]] = {split: [] for split in SPLITS}
    for study in splits:
        reason = next((faults[path] for path in study.images if path in faults), None)
        if reason is None:
            kept[study.split].append(study)
        else:
            skipped.append(f"{study.split} (id {study.id!r}): {reason}")
    ids = {study.id for studies in kept.values() for study in studies}
    parts = {split: tuple(_known_prior(study, ids) for study in kept[split]) for split in SPLITS}
    return StudySplits(splits.source, parts["train"], parts["val"], parts["test"], tuple(skipped))


def _known_prior(study: Study, ids: set[str]) -> Study:
    return study if study.prior_id is None or study.prior_id in ids else replace(study, prior_id=None)

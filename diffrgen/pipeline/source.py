"""The studies that a run trains on or is evaluated on, each with labels."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from diffrgen.images import check_images, raise_broken
from diffrgen.labels import Labeler, RuleLabeler
from diffrgen.phantom import GrammarParser, PhantomOptions, write_phantom
from diffrgen.pipeline.options import DataOptions
from diffrgen.records import Study, StudySplits, read_annotation, without_images

PHANTOM = "phantom"
LabelerName = Literal["phantom", "rule"]


@dataclass(frozen=True)
class Source:
    """Studies that all have labels, and the name of the labeler that reads generated reports the same way."""

    splits: StudySplits
    labeler: LabelerName


def make_labeler(name: LabelerName) -> Labeler:
    """Return the labeler called `name`: the phantom grammar's exact parser, or the rule labeler for real reports."""
    return GrammarParser() if name == PHANTOM else RuleLabeler()


def phantom_folder(options: PhantomOptions) -> Path:
    """Return where the phantom of `options` is kept: below DIFFRGEN_CACHE, else ~/.cache/diffrgen."""
    root = Path(os.environ.get("DIFFRGEN_CACHE", Path.home() / ".cache" / "diffrgen"))
    settings = json.dumps(asdict(options), sort_keys=True).encode()
    return root / f"phantom-{options.studies}-{hashlib.sha256(settings).hexdigest()[:8]}"


def load_source(options: DataOptions, phantom: PhantomOptions) -> Source:
    """Read the studies that `options` names; draw the phantom first where it is asked for and not there yet.

    Where a study brings no labels, the rule labeler reads them out of its report. Raises DataError naming file and
    record; with `skip_broken`, broken records are left out and counted in a warning.
    """
    if options.data == PHANTOM:
        annotation = write_phantom(phantom_folder(phantom), phantom)
        return Source(read_annotation(annotation), PHANTOM)
    splits = read_annotation(options.data, images=options.images, skip_broken=options.skip_broken)
    splits = _readable(splits, skip_broken=options.skip_broken)
    labelled = {split: _labelled(splits[split]) for split in ("train", "val", "test")}
    return Source(replace(splits, **labelled), "rule")


def _readable(splits: StudySplits, *, skip_broken: bool) -> StudySplits:
    """Open every image once: fail naming the unreadable ones, or leave their studies out and say how many."""
    broken = check_images(splits, progress=True)
    if not skip_broken:
        raise_broken(splits, broken, source=splits.source)
    splits = without_images(splits, broken)
    if splits.skipped:
        shown = "\n  ".join(splits.skipped[:5])
        warnings.warn(f"{splits.source}: skipped {len(splits.skipped)} broken record(s):\n  {shown}", stacklevel=2)
    return splits


def _labelled(studies: Sequence[Study]) -> tuple[Study, ...]:
    """Give each study without labels those that the rule labeler reads in its report."""
    missing = [study for study in studies if study.labels is None]
    if not missing:
        return tuple(studies)
    states = RuleLabeler()([study.report for study in missing])
    read = {study.id: tuple(map(int, row)) for study, row in zip(missing, states, strict=True)}
    return tuple(replace(study, labels=read[study.id]) if study.labels is None else study for study in studies)

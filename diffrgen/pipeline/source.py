"""The studies that a run trains on or is evaluated on, each with labels."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from diffrgen.images import check_images, raise_broken
from diffrgen.labels import Labeler
from diffrgen.phantom import PhantomOptions, write_phantom
from diffrgen.pipeline.labeler import LabelerOptions, NamedLabeler, make_labeler
from diffrgen.pipeline.options import DataOptions
from diffrgen.records import SPLITS, Split, Study, StudySplits, read_annotation, without_images

PHANTOM = "phantom"


@dataclass(frozen=True)
class Source:
    """Studies that all have labels, and the labeler that reads written reports.

    read: how many studies of each split the data bring without labels, so that the labeler read theirs.
    """

    splits: StudySplits
    labeler: NamedLabeler
    read: Mapping[Split, int]

    def truth(self, split: Split) -> str:
        """Say where the labels of `split` come from: the data, the labeler by its name, or both."""
        count, read = len(self.splits[split]), self.read[split]
        if 0 < read < count:
            return f"data, {self.labeler.name} for {read} of {count} studies"
        return self.labeler.name if read else "data"


def phantom_folder(options: PhantomOptions) -> Path:
    """Return where the phantom of `options` is kept: below DIFFRGEN_CACHE, else ~/.cache/diffrgen."""
    root = Path(os.environ.get("DIFFRGEN_CACHE", Path.home() / ".cache" / "diffrgen"))
    settings = json.dumps(asdict(options), sort_keys=True).encode()
    return root / f"phantom-{options.studies}-{hashlib.sha256(settings).hexdigest()[:8]}"


def load_source(options: DataOptions, phantom: PhantomOptions, labeler_options: LabelerOptions | None = None) -> Source:
    """Read the studies that `options` names; draw the phantom first where it is asked for and not there yet.

    Where a study brings no labels, the labeler reads them out of its report. Raises DataError naming file and
    record; with `skip_broken`, broken records are left out and counted in a warning.
    """
    is_phantom = options.data == PHANTOM
    labeler = make_labeler(labeler_options or LabelerOptions(), default="phantom" if is_phantom else "rule")
    if is_phantom:
        annotation = write_phantom(phantom_folder(phantom), phantom)
        return Source(read_annotation(annotation), labeler, dict.fromkeys(SPLITS, 0))
    splits = read_annotation(options.data, images=options.images, skip_broken=options.skip_broken)
    splits = _readable(splits, skip_broken=options.skip_broken)
    read = {split: sum(study.labels is None for study in splits[split]) for split in SPLITS}
    train, val, test = (_labelled(splits[split], labeler) for split in SPLITS)
    return Source(replace(splits, train=train, val=val, test=test), labeler, read)


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


def _labelled(studies: Sequence[Study], labeler: Labeler) -> tuple[Study, ...]:
    """Give each study without labels those that the labeler reads in its report."""
    missing = [study for study in studies if study.labels is None]
    if not missing:
        return tuple(studies)
    states = labeler([study.report for study in missing])
    read = {study.id: tuple(map(int, row)) for study, row in zip(missing, states, strict=True)}
    return tuple(replace(study, labels=read[study.id]) if study.labels is None else study for study in studies)

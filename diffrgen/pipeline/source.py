"""The studies that a run trains on or is evaluated on, each with labels."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from diffrgen.errors import DataError, reason_of
from diffrgen.images import ReadImage, check_images, raise_broken, read_resized
from diffrgen.labels import Labeler
from diffrgen.phantom import FORMAT_VERSION, PhantomOptions, write_phantom
from diffrgen.pipeline.cached_images import cached_images
from diffrgen.pipeline.labeler import NamedLabeler, make_labeler
from diffrgen.pipeline.options import PHANTOM, DataOptions, ImageCacheOptions, LabelerOptions
from diffrgen.records import SPLITS, Split, Study, StudySplits, read_annotation, without_images
from diffrgen.records.entry import is_empty_report
from diffrgen.staging import cache_root
from diffrgen.text import ReportSections


@dataclass(frozen=True)
class StudySource:
    """Studies that all have labels, the labeler of generated reports, and the function that reads an image.

    unlabelled: ids of the studies without labels in the data; theirs are the labeler's, from their reports.
    """

    splits: StudySplits
    labeler: NamedLabeler
    read_image: ReadImage = read_resized
    unlabelled: frozenset[str] = frozenset()

    def truth(self, split: Split) -> str:
        """Return where the labels of `split` come from: the data, the labeler by its name, or both."""
        count, labeled = len(self.splits[split]), sum(study.id in self.unlabelled for study in self.splits[split])
        if 0 < labeled < count:
            return f"data, {self.labeler.name} for {labeled} of {count} studies"
        return self.labeler.name if labeled else "data"


def phantom_folder(options: PhantomOptions) -> Path:
    """Return the folder of the phantom of `options`, below `cache_root`."""
    settings = json.dumps({"format": FORMAT_VERSION, **asdict(options)}, sort_keys=True).encode()
    return cache_root() / f"phantom-{options.studies}-{hashlib.sha256(settings).hexdigest()[:8]}"


def load_source(
    options: DataOptions,
    phantom: PhantomOptions,
    labeler_options: LabelerOptions | None = None,
    *,
    cache: ImageCacheOptions | None = None,
    resize: int = 256,
    sections: bool = False,
) -> StudySource:
    """Read the studies that `options` names; the phantom is generated first if it does not exist yet.

    Every image is opened once: decoded at `resize` pixels and stored in `cache`, or only
    checked without a cache; the phantom's images are not checked. Studies without labels get those of the labeler, from
    their reports. sections: a report is the study's findings, then its impression, and the studies' `sections` have
    both. Raises DataError naming file and record; with `skip_broken`, broken records are left out and counted in a warning.
    """
    is_phantom = options.data == PHANTOM
    labeler = make_labeler(labeler_options or LabelerOptions(), default="phantom" if is_phantom else "rule")
    if is_phantom:
        splits = read_annotation(_drawn(phantom))
    else:
        splits = read_annotation(
            options.data,
            images=options.images,
            skip_broken=options.skip_broken,
            views=options.views,
            view_index=options.view_index,
        )
    if sections:
        splits = _with_sections(splits, is_phantom=is_phantom)
    images = None if cache is None else cached_images(splits, cache, resize=resize)
    if images is not None:
        splits = _readable(splits, images.faults, skip_broken=options.skip_broken)
    elif not is_phantom:
        splits = _readable(splits, check_images(splits, progress=True), skip_broken=options.skip_broken)
    unlabelled = frozenset(study.id for study in splits if study.labels is None)
    train, val, test = (_labelled(splits[split], labeler) for split in SPLITS)
    return StudySource(
        replace(splits, train=train, val=val, test=test),
        labeler,
        read_resized if images is None else images.read,
        unlabelled,
    )


def _drawn(options: PhantomOptions) -> Path:
    """Return the annotation of the phantom, generated if missing; DataError if it cannot be written."""
    folder = phantom_folder(options)
    try:
        return write_phantom(folder, options)
    except OSError as error:
        raise DataError(
            f"{folder}: the phantom cannot be drawn here: {reason_of(error)}; set the environment variable "
            "DIFFRGEN_CACHE to a folder with room that may be written"
        ) from error


def _with_sections(splits: StudySplits, *, is_phantom: bool) -> StudySplits:
    """Build each report from its study's findings and impression; DataError names studies that have neither.

    The report of a phantom study is its findings: in its record, the field `findings` holds the ground truth.
    """

    def joined(study: Study) -> Study:
        known = replace(study.sections, findings=study.report) if is_phantom else study.sections
        return replace(study, report=ReportSections(known.findings, known.impression).text, sections=known)

    train, val, test = (tuple(map(joined, splits[split])) for split in SPLITS)
    missing = [study.id for study in (*train, *val, *test) if is_empty_report(study.report)]
    if missing:
        raise DataError(
            f"{splits.source}: needed the text field findings or impression in each record for --text.sections, got neither "
            f"in {len(missing)}, such as {', '.join(map(repr, missing[:3]))}; python -m diffrgen.prepare --section both "
            "makes such a file"
        )
    return replace(splits, train=train, val=val, test=test)


def _readable(splits: StudySplits, broken: dict[Path, str], *, skip_broken: bool) -> StudySplits:
    """Fail naming the images that cannot be read, or exclude them, and studies without another image, and print their number."""
    if not skip_broken:
        raise_broken(splits, broken, source=splits.source)
    splits = without_images(splits, broken)
    for what, reasons in (("record(s)", splits.skipped), ("image(s) of studies with others", splits.skipped_images)):
        if reasons:
            shown = "\n  ".join(reasons[:5])
            warnings.warn(f"{splits.source}: skipped {len(reasons)} broken {what}:\n  {shown}", stacklevel=2)
    return splits


def _labelled(studies: Sequence[Study], labeler: Labeler) -> tuple[Study, ...]:
    """Give each study without labels those of the labeler for its report."""
    missing = [study for study in studies if study.labels is None]
    if not missing:
        return tuple(studies)
    states = labeler([study.report for study in missing])
    read = {study.id: tuple(map(int, row)) for study, row in zip(missing, states, strict=True)}
    return tuple(replace(study, labels=read[study.id]) if study.labels is None else study for study in studies)

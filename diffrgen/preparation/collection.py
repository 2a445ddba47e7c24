"""Any collection of studies made into an annotation file: read twice, so that no report is held in memory."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from tqdm import tqdm

from diffrgen.errors import DataError
from diffrgen.preparation.collected import CollectedStudy
from diffrgen.preparation.options import CollectionOptions
from diffrgen.preparation.prior_ids import PriorIds
from diffrgen.preparation.summary import Summary
from diffrgen.preparation.views import ViewedImage, most_images, named_views, ordered_images, wanted_views
from diffrgen.preparation.writer import AnnotationWriter
from diffrgen.records import Split
from diffrgen.records.location import FileListing, path_fault

Record = dict[str, Any]
Studies = Callable[[], Iterator[CollectedStudy]]


class PackedImages(Protocol):
    """The images of a collection in the files that its host packs them in."""

    def names(self) -> Collection[str] | None:
        """Return the images that the files hold; None if that requires reading all of them."""
        ...

    def unpack(self, wanted: Collection[str], folder: Path, *, progress: bool) -> Iterator[tuple[str, str]]:
        """Write each image of `wanted` below `folder`; yield those that are not there or damaged, with the reason."""
        ...


class Kept(NamedTuple):
    """The data of a study kept between the two passes over the table."""

    patient: str
    split: Split
    order: float | None
    images: tuple[ViewedImage, ...]


class ImageSource(NamedTuple):
    """The location of a collection's images: a folder, packed files, or unknown."""

    folder: Path | None
    packed: PackedImages | None


def write_collection(
    studies: Studies, images: ImageSource, options: CollectionOptions, summary: Summary, *, progress: bool = False
) -> Summary:
    """Write annotation.json and summary.json to `options.out` from what `studies` yields, each time that it is called.

    A study that is there twice, has no text of the chosen section or no image of the wanted views is left out and counted
    in `summary`; so is an image that is missing or damaged where images are looked at. A study's prior is the patient's
    latest of a smaller order that is kept. The order of the studies is that of `studies` within each split.

    Raises:
        DataError: a patient is in two splits, an image path leaves the folder, nothing is left, another annotation is there.
    """
    kept = _kept(tqdm(studies(), "studies", unit="study", disable=not progress, leave=False), options, summary)
    kept = _with_readable_images(kept, images, options, summary, progress=progress)
    priors = _priors(kept)
    one_each = options.entries == "image"
    with AnnotationWriter(options.out, overwrite=options.overwrite) as writer:
        for study in tqdm(studies(), "records", unit="study", disable=not progress, leave=False):
            known = kept.pop(study.id, None)
            if known is None:
                continue
            groups = [[image] for image in known.images] if one_each else [list(known.images)]
            states = None if study.labels is None else bytes(study.labels)
            counts = {"entries": len(groups), "images": len(known.images)}
            summary.keep(study.split, patient=study.patient, states=states, **counts)
            for position, group in enumerate(groups):
                writer.add(study.split, _record(study, group, position, priors.get(study.id), options))
        writer.finish(summary)
    return summary


def plain_options(options: CollectionOptions) -> Record:
    """Return the choices that make a difference to the content."""
    return {key: value for key, value in asdict(options).items() if key not in ("archive", "out", "overwrite")}


def _kept(studies: Iterator[CollectedStudy], options: CollectionOptions, summary: Summary) -> dict[str, Kept]:
    """Return the studies that can be used by what is written of them, counting the others."""
    wanted = wanted_views(options.views)
    kept: dict[str, Kept] = {}
    seen: set[str] = set()
    split_of: dict[str, Split] = {}
    images = 0
    for study in studies:
        if study.id in seen:
            summary.drop("studies", "duplicate study", study.id)
            continue
        seen.add(study.id)
        images += len(study.images)
        expected = split_of.setdefault(study.patient, study.split)
        if expected != study.split:
            raise DataError(
                f"{options.archive}: expected all studies of patient {study.patient} in {expected}, got study {study.id} in "
                f"{study.split}; the patient would be trained on and tested"
            )
        if not study.text(options.section):
            what = "findings or impression" if options.section == "both" else options.section
            summary.drop("studies", f"report without {what}", study.id)
            continue
        chosen = ordered_images(study.images, wanted)
        if not chosen:
            summary.drop("studies", "study without an image of the requested views", study.id)
            continue
        fault = next(filter(None, (path_fault(image.name) for image in chosen)), None)
        if fault is not None:
            raise DataError(f"{options.archive}: study {study.id}: {fault}")
        kept[study.id] = Kept(study.patient, study.split, study.order, tuple(chosen))
    summary.read |= {"studies": len(seen), "images": images}
    return kept


def _with_readable_images(
    kept: Mapping[str, Kept], images: ImageSource, options: CollectionOptions, summary: Summary, *, progress: bool
) -> dict[str, Kept]:
    """Return `kept` without the images that are missing or damaged, and at most four images of a study."""
    faults = _image_faults(kept, images, options, progress=progress)
    for name, reason in faults.items():
        summary.drop("images", reason, name)
    left: dict[str, Kept] = {}
    for name, study in kept.items():
        readable = [image for image in study.images if image.name not in faults]
        if not readable:
            summary.drop("studies", "study without an existing image", name)
            continue
        most = readable if options.entries == "image" else most_images(readable, summary)
        left[name] = study._replace(images=tuple(most))
    return left


def _image_faults(
    kept: Mapping[str, Kept], images: ImageSource, options: CollectionOptions, *, progress: bool
) -> dict[str, str]:
    """Return the faults of images, by name; empty without --check-images or --unpack."""
    wanted = dict.fromkeys(image.name for study in kept.values() for image in study.images)
    if options.unpack:
        if images.packed is None:
            raise DataError(f"{options.archive}: needed packed images for --unpack, got none")
        return dict(images.packed.unpack(wanted, options.out / "images", progress=progress))
    if not options.check_images:
        return {}
    there: Collection[str] | FileListing | None = None
    if images.folder is not None:
        there = FileListing(images.folder)
    elif images.packed is not None:
        there = images.packed.names()
    if there is None:
        raise DataError(f"{options.archive}: needed the image files for --check-images, got none that can be looked up")
    return {name: "image file missing" for name in wanted if name not in there}


def _priors(kept: Mapping[str, Kept]) -> dict[str, str]:
    """Return the patient's prior study (the latest of an earlier day) for each study that has one."""
    ids = PriorIds()
    ordered = sorted(kept.items(), key=lambda item: (item[1].patient, item[1].order or 0.0, item[0]))
    found = ((name, ids.next(study.patient, study.order, name)) for name, study in ordered)
    return {name: prior for name, prior in found if prior is not None}


def _record(
    study: CollectedStudy, images: list[ViewedImage], position: int, prior: str | None, options: CollectionOptions
) -> Record:
    one_each = options.entries == "image"
    record: Record = {
        "id": f"{study.id}-{position}" if one_each else study.id,
        "study_id": study.id,
        "patient_id": study.patient,
        "report": study.text(options.section),
        "image_path": [image.name for image in images],
    }
    earlier = {} if prior is None else {"prior_id": f"{prior}-0" if one_each else prior}
    return record | study.known() | named_views(images) | earlier | study.sections.to_record()

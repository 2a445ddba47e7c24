"""The view of an image: which are frontal, which a user wants, and the order within a study."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from diffrgen.preparation.summary import Summary
from diffrgen.records import MAX_VIEWS

FRONTAL, LATERAL, UNKNOWN = "FRONTAL", "LATERAL", "UNKNOWN"
# PA before AP before the rest: the standard view first.
FRONTAL_VIEWS = ("PA", "AP", FRONTAL)
LATERAL_VIEWS = (LATERAL, "LL")


class ViewedImage(NamedTuple):
    """One image: its name in the archive and its view, "" if the archive does not contain it."""

    name: str
    view: str


def wanted_views(names: Sequence[str]) -> frozenset[str] | None:
    """Return the views that `names` stand for, upper case, "" for unknown; None (all) for no names.

    >>> sorted(wanted_views(["frontal", "xtable lateral"]))
    ['AP', 'FRONTAL', 'PA', 'XTABLE LATERAL']
    """
    if not names:
        return None
    groups = {FRONTAL: FRONTAL_VIEWS, LATERAL: LATERAL_VIEWS, UNKNOWN: ("",)}
    return frozenset(view for name in names for view in groups.get(name.upper(), (name.upper(),)))


def ordered_images(images: Iterable[ViewedImage], wanted: frozenset[str] | None) -> list[ViewedImage]:
    """Return the images whose view is `wanted` (None: all), frontal first, lateral last, by name where equal."""
    kept = [image for image in images if wanted is None or image.view.upper() in wanted]
    return sorted(kept, key=lambda image: (_rank(image.view.upper()), image.name))


def most_images(images: list[ViewedImage], summary: Summary) -> list[ViewedImage]:
    """Return the images of a study that a record may list, counting in `summary` those that are too many."""
    for image in images[MAX_VIEWS:]:
        summary.drop("images", f"image beyond the first {MAX_VIEWS} of a study", image.name)
    return images[:MAX_VIEWS]


def named_views(images: Sequence[ViewedImage]) -> dict[str, str | list[str]]:
    """Return the fields of a record that name the views of its images: `view`, and `views` of several; none if none is known."""
    views = [image.view for image in images]
    if not any(views):
        return {}
    return ({"view": views[0]} if views[0] else {}) | ({"views": views} if len(views) > 1 else {})


def _rank(view: str) -> int:
    if view in FRONTAL_VIEWS:
        return FRONTAL_VIEWS.index(view)
    if view in LATERAL_VIEWS:
        return len(FRONTAL_VIEWS) + 2
    # The decubitus views (AP LLD, PA RLD, ...) are frontal radiographs too.
    return len(FRONTAL_VIEWS) + (0 if view.startswith(("PA ", "AP ")) else 1)

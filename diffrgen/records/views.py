"""The kind of an image's view, which views of a study are used, and how the data sets name them."""

from __future__ import annotations

import re
from typing import Literal, get_args

ViewKind = Literal["unknown", "frontal", "lateral"]
"""The kinds of view that a network distinguishes; a kind's number is its position here."""
ViewChoice = Literal["all", "frontal", "first"]
"""The images of a study that are used: all, the first frontal one (else the first), or the first as listed."""

VIEW_KINDS: tuple[ViewKind, ...] = get_args(ViewKind)
MAX_VIEWS = 4
FRONTAL_WORDS = frozenset({"PA", "AP", "FRONTAL", "POSTEROANTERIOR", "ANTEROPOSTERIOR"})
LATERAL_WORDS = frozenset({"LATERAL", "LAT", "LL", "RL", "L"})


def view_kind(name: str | None) -> ViewKind:
    """Return the kind that a data set's name of a view stands for.

    DICOM's ViewPosition, Open-i's projection and the kinds' own names are understood, in any case. A decubitus view is
    taken from the front, whatever side the patient lies on; oblique and other views are of unknown kind.

    >>> [view_kind(name) for name in ("PA", "ap lld", "Frontal", "LL", "XTABLE LATERAL", "LAO", "", None)]
    ['frontal', 'frontal', 'frontal', 'lateral', 'lateral', 'unknown', 'unknown', 'unknown']
    """
    words = re.findall("[A-Z]+", (name or "").upper())
    if not FRONTAL_WORDS.isdisjoint(words):
        return "frontal"
    return "unknown" if LATERAL_WORDS.isdisjoint(words) else "lateral"


def chosen_view(kinds: tuple[ViewKind, ...], choice: ViewChoice) -> slice:
    """Return the places of the views that `choice` takes out of those of a study.

    >>> chosen_view(("lateral", "frontal", "frontal"), "frontal")
    slice(1, 2, None)
    """
    if choice == "all":
        return slice(None)
    place = main_view(kinds) if choice == "frontal" else 0
    return slice(place, place + 1)


def main_view(kinds: tuple[ViewKind, ...]) -> int:
    """Return the place of the view to use where only one can be: the first frontal one, else the first.

    >>> main_view(("lateral", "frontal")), main_view(("unknown", "lateral"))
    (1, 0)
    """
    return kinds.index("frontal") if "frontal" in kinds else 0

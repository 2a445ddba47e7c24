"""The words of pages and terminal output for the names of the code."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from diffrgen.reporting.confidence import probability_words

if TYPE_CHECKING:
    from diffrgen.explanation import AttentionShares, ExplainedPrior, LayerRoute
    from diffrgen.reporting.confidence import SentenceConfidence

NOTICE = "Research use only, not for diagnosis."
STATE_WORDS = {"blank": "not mentioned", "positive": "present", "negative": "absent", "uncertain": "uncertain"}
METRIC_NAMES = {"l2": "distance", "cosine": "direction", "dot": "inner product"}
METRIC_MEANINGS = {
    "l2": "distance between the two vectors; 0 if they are equal",
    "cosine": "cosine of the angle between the vectors: 1 for the same direction, 0 for a right angle",
    "dot": "direction and lengths combined: large if both vectors are long and have the same direction",
}
# Minimum probability of each word for a sentence.
UNLIKELY = "unlikely"
SURE = ((0.8, "likely"), (0.5, "uncertain"), (0.0, UNLIKELY))
# Routing weights of a layer that differ by less are called equal.
CLEAR = 0.05
HALF = 0.5


def state_words(state: str, severity: str | None = None) -> str:
    """Return the state of a finding as text, with its severity.

    >>> state_words("blank"), state_words("positive", "mild")
    ('not mentioned', 'present, mild')
    """
    return STATE_WORDS[state] if severity is None else f"{STATE_WORDS[state]}, {severity}"


def prose(text: str) -> str:
    """Return a cleaned sentence as one writes it: no blank before a stop, a capital first.

    >>> prose("no effusion , no edema .")
    'No effusion, no edema.'
    """
    # Matches only from the first blank of a run; from each blank, a long run would take quadratic time.
    joined = re.sub(r"(?<!\s)\s+([.,;:!?])", r"\1", text.strip())
    return joined[:1].upper() + joined[1:]


def confidence_words(sentence: SentenceConfidence, *, below: float | None = None) -> str:
    """Return the confidence of a sentence as text, with "doubtful" if it is less probable than `below`.

    >>> from diffrgen.reporting.confidence import SentenceConfidence
    >>> effusion = SentenceConfidence("an effusion .", 0, 13, {"pleural effusion": "positive"}, 0.31, -0.2, -0.9, 0.4, 0.1)
    >>> confidence_words(effusion), confidence_words(effusion, below=0.5)
    ('31% likely to be true', 'doubtful: 31% likely to be true')
    """
    if sentence.probability is None:
        return "mentions no finding, so it is not rated"
    return probability_words(sentence.probability, doubtful=below is not None and sentence.doubtful(below))


def sure_words(probability: float) -> str:
    """Return the confidence of a sentence as a word.

    >>> [sure_words(p) for p in (0.8, 0.79, 0.5, 0.1)]
    ['likely', 'uncertain', 'uncertain', 'unlikely']
    """
    return next(words for least, words in SURE if probability >= least)


def shares_by_name(shares: AttentionShares) -> list[tuple[str, float]]:
    """Return the parts of the attention by the names that the page gives them; no prior where none was read."""
    named = [("image", shares.patches), ("similar", shares.similar), ("differing", shares.difference)]
    named += [("prior", shares.prior)] if shares.prior else []
    return named + ([("context", shares.context)] if shares.context else [])


def share_words(shares: AttentionShares) -> str:
    """Describe the share of the attention for each part of the memory."""
    return ", ".join(f"{name} {share:.0%}" for name, share in shares_by_name(shares))


def strongest(heat: np.ndarray, share: float = HALF) -> np.ndarray:
    """Return which patches, bool of the shape of `heat`, are the fewest that hold `share` of it."""
    order = np.argsort(-heat, axis=None, kind="stable")
    before = np.cumsum(heat.ravel()[order]) - heat.ravel()[order]
    inside = np.zeros(heat.size, dtype=bool)
    inside[order[before < share * heat.sum()]] = True
    return inside.reshape(heat.shape)


def place_words(heat: np.ndarray) -> str:
    """Return the position of the maximum of heat (gh, gw) within a view as text.

    >>> place_words(np.eye(3)[::-1])
    'upper right'
    """
    row, column = np.unravel_index(int(heat.argmax()), heat.shape)
    down = ("upper", "middle", "lower")[int(3 * (row + 0.5) / heat.shape[0])]
    across = ("left", "centre", "right")[int(3 * (column + 0.5) / heat.shape[1])]
    return "centre" if (down, across) == ("middle", "centre") else f"{down} {across}"


def spread_words(heat: np.ndarray, views: Sequence[str] = ()) -> str:
    """Describe heat (V, gh, gw): the smallest number of patches with half of it, and the view and position of its maximum.

    views: the kinds of several views, which are named where there are more than one.

    >>> spread_words(np.array([[[0.6, 0.1], [0.1, 0.2]]]))
    'half of it on 1 of 4 patches, most in the upper left'
    >>> spread_words(np.array([[[0.1]], [[0.9]]]), ("frontal", "lateral"))
    'half of it on 1 of 2 patches, most in the centre of the lateral view'
    """
    view = int(heat.max((1, 2)).argmax())
    where = f" of the {view_name(views, view)}" if len(heat) > 1 else ""
    return f"half of it on {strongest(heat).sum()} of {heat.size} patches, most in the {place_words(heat[view])}{where}"


def view_name(views: Sequence[str], place: int) -> str:
    """Name the view at `place`, by its kind where that is known and no other view has it, else by its number.

    >>> [view_name(("frontal", "lateral", "lateral"), place) for place in range(3)]
    ['frontal view', 'lateral view 2', 'lateral view 3']
    >>> view_name((), 1)
    'view 2'
    """
    kind = views[place] if views else "unknown"
    name = "view" if kind == "unknown" else f"{kind} view"
    return name if kind != "unknown" and views.count(kind) == 1 else f"{name} {place + 1}"


def route_words(route: LayerRoute) -> str:
    """Name the mask that a layer selected, and the row whose window is drawn."""
    ordered = sorted(route.weights, reverse=True)
    clear = len(ordered) < 2 or ordered[0] - ordered[1] >= CLEAR
    choice = "" if clear else "Nearly equal weights. "
    if route.chosen == 0:
        return f"{choice}Most weight: the complete image."
    side, (row, column) = 2 * route.chosen + 1, route.centre
    return (
        f"{choice}Most weight: windows of {side} x {side} patches. The image shows the window of retrieved report "
        f"{route.report + 1}, around the patch in row {row + 1}, column {column + 1}."
    )


def prior_row_names(prior: ExplainedPrior) -> list[str]:
    """Name the rows of the prior study that `prior.differences` compares."""
    image = [] if prior.image is None else ["the prior image"]
    return [*image, *(sentence.text for sentence in prior.sentences)]

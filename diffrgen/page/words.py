"""The words that a reader meets instead of the code's names."""

from __future__ import annotations

import numpy as np

from diffrgen.explanation import ReportSentence

NOTICE = "Research use only, not for diagnosis."
STATE_WORDS = {"blank": "not mentioned", "positive": "present", "negative": "absent", "uncertain": "uncertain"}
METRIC_NAMES = {"l2": "distance", "cosine": "direction", "dot": "inner product"}
METRIC_MEANINGS = {
    "l2": "how far the two vectors lie apart; 0 would be the same point",
    "cosine": "whether the two vectors point the same way, whatever their lengths; 1 is the same direction, 0 a right angle",
    "dot": "direction and lengths together: great where both vectors are long and point the same way",
}


def share_words(sentence: ReportSentence, neighbours: int) -> str:
    """Say how much attention went where, and which retrieved reports say the sentence too."""
    shares = sentence.shares
    parts = {"image": shares.patches, "similar": shares.similar, "differing": shares.difference, "prior": shares.prior}
    looked = ", ".join(f"{name} {share:.0%}" for name, share in parts.items() if name != "prior" or share)
    also = f"; also in {len(sentence.shared_with)} of {neighbours} retrieved reports" if sentence.shared_with else ""
    return f"attention: {looked}{also}"


def place_words(heat: np.ndarray) -> str:
    """Say where in the picture the greatest of heat (gh, gw) lies.

    >>> place_words(np.eye(3)[::-1])
    'upper right'
    """
    row, column = np.unravel_index(int(heat.argmax()), heat.shape)
    down = ("upper", "middle", "lower")[int(3 * (row + 0.5) / heat.shape[0])]
    across = ("left", "centre", "right")[int(3 * (column + 0.5) / heat.shape[1])]
    return "centre" if (down, across) == ("middle", "centre") else f"{down} {across}"

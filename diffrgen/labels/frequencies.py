"""The frequency of each finding: PromptMRG's base_probs.json, and the initial prior of Eq. 9."""

from __future__ import annotations

import numpy as np

from diffrgen.labels.findings import AUXILIARY, FINDINGS, State


def base_frequencies(states: np.ndarray) -> dict[str, float]:
    """Return the share of reports in which each finding is positive, 0..1, by its name.

    states: (n, 14), or (n, 18) with `AUXILIARY`, values of `State`. Raises ValueError for another shape or n = 0.

    >>> base_frequencies(np.array([[0] * 13 + [1], [1] + [3] * 13]))["no finding"]
    0.5
    """
    names = FINDINGS + AUXILIARY
    if states.ndim != 2 or not len(states) or states.shape[1] not in (len(FINDINGS), len(names)):
        raise ValueError(f"expected states of shape (n >= 1, 14 or 18), got {states.shape}")
    return dict(zip(names, (states == State.POSITIVE).mean(0).tolist(), strict=False))

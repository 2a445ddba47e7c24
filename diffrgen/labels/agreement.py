"""When the state of a finding in a sentence agrees with the true state.

    sentence             agrees with
    positive             positive
    uncertain            uncertain, positive
    negative             negative, blank (a report that does not name a finding takes it as absent)
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from diffrgen.labels.findings import State

AGREES: Mapping[State, tuple[State, ...]] = MappingProxyType(
    {
        State.POSITIVE: (State.POSITIVE,),
        State.UNCERTAIN: (State.UNCERTAIN, State.POSITIVE),
        State.NEGATIVE: (State.NEGATIVE, State.BLANK),
    }
)


def agreeing(stated: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return which states `stated` agree with the states `truth`, bool; arrays of one shape, values of `State`.

    What is not stated (blank) contradicts nothing.

    >>> agreeing(np.array([1, 1, 3, 2, 2, 0]), np.array([1, 3, 1, 0, 3, 1])).tolist()
    [True, False, True, True, False, True]
    """
    agrees = stated == State.BLANK
    for state, states in AGREES.items():
        agrees = agrees | ((stated == state) & np.isin(truth, states))
    return agrees


def probability_of_agreement(stated: np.ndarray, probability: np.ndarray) -> np.ndarray:
    """Return the probability (C,) that the states `stated` (C,) agree with the truth.

    probability: (4, C), of each `State` of each finding; 1 if nothing is said.
    """
    agrees = np.ones(len(stated))
    for state, states in AGREES.items():
        agrees = np.where(stated == state, probability[list(states)].sum(0), agrees)
    return agrees

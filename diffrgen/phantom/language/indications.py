"""The indication of a phantom study: a complaint, and with p 0.5 a disease that its image shows."""

from __future__ import annotations

import numpy as np

from diffrgen.phantom.patients.states import StudyState

NAMED_SHARE = 0.5
COMPLAINTS = ("Cough.", "Shortness of breath.", "Chest pain.", "Fever.", "Follow-up.", "Preoperative.")


def write_indication(study: StudyState, rng: np.random.Generator) -> str:
    """Return the indication of `study`, such as "Cough. Evaluate for pneumonia."

    A study that shows a disease has one of its diseases named with a probability of 0.5; one that shows none has a
    complaint alone. So what an indication names is there, and half of what is there goes unnamed.
    """
    complaint = COMPLAINTS[rng.integers(len(COMPLAINTS))]
    named = rng.random() < NAMED_SHARE
    choice = rng.random()
    if not named or not study.present:
        return complaint
    return f"{complaint} Evaluate for {study.present[int(choice * len(study.present))].finding}."

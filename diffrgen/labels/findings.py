"""The 14 findings in CheXbert's order, PromptMRG's four others, and the states that a report can give each of them."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import Protocol

import numpy as np

FINDINGS: tuple[str, ...] = (
    "enlarged cardiomediastinum",
    "cardiomegaly",
    "lung opacity",
    "lung lesion",
    "edema",
    "consolidation",
    "pneumonia",
    "atelectasis",
    "pneumothorax",
    "pleural effusion",
    "pleural other",
    "fracture",
    "support devices",
    "no finding",
)

# The other findings of PromptMRG's 18 labels, in its order: learned and prompted, never scored.
AUXILIARY: tuple[str, ...] = (
    "aorta abnormal",
    "bone/spine abnormal",
    "hemidiaphragm abnormal",
    "lung volume abnormal",
)

NO_FINDING = FINDINGS.index("no finding")
DISEASES: tuple[str, ...] = FINDINGS[:NO_FINDING]
# CheXpert's five competition tasks, often reported separately (Irvin et al., 2019).
COMMON: tuple[str, ...] = ("atelectasis", "cardiomegaly", "consolidation", "edema", "pleural effusion")


class State(IntEnum):
    """State of one finding in a report (PromptMRG's coding)."""

    BLANK = 0
    POSITIVE = 1
    NEGATIVE = 2
    UNCERTAIN = 3


class Severity(IntEnum):
    """Severity of one positive finding in a report."""

    UNSTATED = 0
    MILD = 1
    MODERATE = 2
    SEVERE = 3


# Used for each state of a prior study if there is no prior study.
NO_STUDY = -1


class Labeler(Protocol):
    """Reads the states of the 14 findings out of report texts."""

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Return states, (len(texts), 14) int64 in the order of `FINDINGS`, values of `State`."""
        ...

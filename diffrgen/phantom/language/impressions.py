"""The impression of a phantom study: its worst findings again, or that there is none."""

from __future__ import annotations

import numpy as np

from diffrgen.phantom.language.grammar import finding_sentence
from diffrgen.phantom.language.phrasing import finish, pick
from diffrgen.phantom.language.wordings import load_wordings
from diffrgen.phantom.patients.states import StudyState

MOST = 3


def write_impression(study: StudyState, rng: np.random.Generator, *, variety: float = 1.0) -> str:
    """Return the impression of `study`: up to three of the findings in its image, the most severe first, a sentence each.

    For a study without any, it states that nothing acute is seen. It adds nothing to the study's report.
    `variety` is the share of all wordings that it is written with.
    """
    words = load_wordings(variety)
    worst = sorted(study.present, key=lambda finding: -finding.grade)[:MOST]
    sentences = [finding_sentence(finding, words, rng) for finding in worst] or [pick(words.normals["healthy"], rng)]
    return " ".join(map(finish, sentences))

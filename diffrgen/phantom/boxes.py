"""Boxes of the findings of a phantom study: the part of the image that changes if a finding is left out."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from diffrgen.phantom.drawing.render import draw_scene
from diffrgen.phantom.options import PhantomOptions
from diffrgen.phantom.patients.patient import sample_patient, study_counts
from diffrgen.phantom.patients.states import StudyState

STUDY = re.compile(r"p(\d{6})s(\d)")
# The share of the difference that lies within the box, along each axis.
WITHIN = 0.9
# Pixels a side of the images that are compared: a box needs no more.
SIZE = 128


class Box(NamedTuple):
    """A rectangle in shares of the image's height and width, from the upper left."""

    top: float
    left: float
    bottom: float
    right: float

    def holds(self, row: float, column: float) -> bool:
        """Return whether the point, in the same shares, lies within."""
        return self.top <= row <= self.bottom and self.left <= column <= self.right


def finding_boxes(options: PhantomOptions, study_id: str) -> dict[str, Box]:
    """Return the box of each finding that is present in a study of the phantom of `options`.

    A finding's box holds 90 % of what the density of the image changes, along each axis, as the finding is left out. Raises
    ValueError for an id that no study of this phantom has.
    """
    index, number = _place(options, study_id)
    patient = sample_patient(options, index, _counts(options)[index])
    study, small = patient.studies[number], replace(options, size=SIZE)
    density = draw_scene(patient.anatomy, study, small).density
    return {
        state.finding: _box(np.abs(density - draw_scene(patient.anatomy, _without(study, state.finding), small).density))
        for state in study.present
    }


def _place(options: PhantomOptions, study_id: str) -> tuple[int, int]:
    match = STUDY.fullmatch(study_id)
    counts = _counts(options)
    if match is None or int(match[1]) >= len(counts) or int(match[2]) >= counts[int(match[1])]:
        raise ValueError(f"expected the id of a study of a phantom of {options.studies} studies, got {study_id!r}")
    return int(match[1]), int(match[2])


@lru_cache(maxsize=8)
def _counts(options: PhantomOptions) -> tuple[int, ...]:
    return tuple(study_counts(options))


def _without(study: StudyState, finding: str) -> StudyState:
    return replace(study, findings={name: state for name, state in study.findings.items() if name != finding})


def _box(change: np.ndarray) -> Box:
    """Return the box of change (S, S), along each axis from its 5 % to its 95 % quantile."""
    bounds = []
    for axis in (1, 0):
        mass = change.sum(axis)
        reached = np.cumsum(mass) / max(mass.sum(), np.finfo(np.float32).tiny)
        ends = np.searchsorted(reached, ((1 - WITHIN) / 2, (1 + WITHIN) / 2))
        bounds.append((ends[0] / len(mass), (ends[1] + 1) / len(mass)))
    (top, bottom), (left, right) = bounds
    return Box(float(top), float(left), float(bottom), float(right))

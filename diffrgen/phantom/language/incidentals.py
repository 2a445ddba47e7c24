"""Sentences that carry no finding: technique, comparison, and other content of the image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from diffrgen.phantom.language.phrasing import pick
from diffrgen.phantom.language.wordings import Wordings
from diffrgen.phantom.patients.anatomy import Anatomy
from diffrgen.phantom.patients.states import StudyState

SHORTEST = 36
LONGEST_FILLED = 62


@dataclass(frozen=True, slots=True)
class Extra:
    """What goes before and after the findings."""

    opening: tuple[str, ...]
    closing: tuple[str, ...]


def optional_sentences(
    anatomy: Anatomy,
    study: StudyState,
    words: Wordings,
    rng: np.random.Generator,
    *,
    length: int,
    healthy: bool,
) -> Extra:
    """Return sentences that lengthen a report of `length` words; a later study names its comparison."""
    opening = [pick(words.normals[study.acquisition.view], rng)] if length < 60 and rng.random() < 0.6 else []
    if study.follow_up:
        days = "1 day" if study.interval == 1 else f"{study.interval} days"
        opening.append(pick(words.normals["follow_up"], rng).replace("{days} days", days))
    elif rng.random() < 0.15 and length < 60:
        opening.append(pick(words.normals["first"], rng))
    closing = [pick(words.normals[key], rng) for key in visible(anatomy, study) if rng.random() < 0.75 and length < 70]
    if healthy and rng.random() < 0.5:
        closing.append(pick(words.normals["healthy"], rng))
    length += sum(len(sentence.split()) for sentence in (*opening, *closing))
    wanted = int(rng.integers(SHORTEST, LONGEST_FILLED))
    fillers = list(words.normals["always"])
    rng.shuffle(fillers)
    while fillers and length < wanted:
        closing.append(fillers.pop())
        length += len(closing[-1].split())
    rng.shuffle(closing)
    return Extra(tuple(opening), tuple(closing))


def visible(anatomy: Anatomy, study: StudyState) -> list[str]:
    """Return the keys of `normals.json` whose sentences are true of this image."""
    shot = study.acquisition
    truths = {
        "low_volumes": shot.low_volumes and not anatomy.hyperinflated,
        "hyperinflated": anatomy.hyperinflated and not shot.low_volumes,
        f"rotated_{shot.rotated}": shot.rotated is not None,
        "tortuous_aorta": anatomy.tortuous_aorta,
        "calcified_aorta": anatomy.calcified_aorta,
        "degenerative_spine": anatomy.degenerative_spine,
        "scoliosis": anatomy.scoliosis != 0.0,
        "stomach_gas": shot.stomach_gas > 0.85,
        "breasts": anatomy.breasts > 0.85,
    }
    return [key for key, true in truths.items() if true]

"""Anatomy of a patient: the properties that all of the patient's images share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Anatomy:
    """Proportions of one patient in half image sides; `seed` draws vessels and where findings sit."""

    seed: int
    habitus: float
    breasts: float
    lung_width: float
    lung_top: float
    lung_base: float
    dome_rise: float
    shoulder: float
    heart_ratio: float
    heart_left_share: float
    mediastinum: float
    rib_spacing: float
    rib_slope: float
    rib_contrast: float
    scoliosis: float
    tortuous_aorta: bool
    calcified_aorta: bool
    degenerative_spine: bool
    hyperinflated: bool
    arms: bool


def sample_anatomy(rng: np.random.Generator) -> Anatomy:
    """Draw a patient's anatomy."""
    hyperinflated = bool(rng.random() < 0.09)
    return Anatomy(
        seed=int(rng.integers(2**62)),
        habitus=float(np.clip(rng.normal(0.45, 0.25), 0.0, 1.0)),
        breasts=float(rng.uniform(0.5, 1.0)) if rng.random() < 0.48 else 0.0,
        lung_width=float(rng.uniform(0.70, 0.79)),
        lung_top=float(rng.uniform(-0.82, -0.74)),
        lung_base=float(rng.uniform(0.58, 0.68)) + (0.08 if hyperinflated else 0.0),
        dome_rise=float(rng.uniform(0.19, 0.25)) * (0.45 if hyperinflated else 1.0),
        shoulder=float(rng.uniform(-0.05, 0.05)),
        heart_ratio=float(rng.uniform(0.41, 0.475)),
        heart_left_share=float(rng.uniform(0.66, 0.72)),
        mediastinum=float(rng.uniform(0.115, 0.14)),
        rib_spacing=float(rng.uniform(0.130, 0.152)),
        rib_slope=float(rng.uniform(0.15, 0.26)),
        rib_contrast=float(rng.uniform(0.8, 1.2)),
        scoliosis=float(rng.choice([-1.0, 1.0]) * rng.uniform(0.035, 0.055)) if rng.random() < 0.05 else 0.0,
        tortuous_aorta=bool(rng.random() < 0.14),
        calcified_aorta=bool(rng.random() < 0.12),
        degenerative_spine=bool(rng.random() < 0.18),
        hyperinflated=hyperinflated,
        arms=bool(rng.random() < 0.35),
    )

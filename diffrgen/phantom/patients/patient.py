"""A patient: an anatomy and one to three studies, all drawn from the patient's own seed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from diffrgen.phantom.options import PhantomOptions
from diffrgen.phantom.patients.anatomy import Anatomy, sample_anatomy
from diffrgen.phantom.patients.evolution import evolve_devices, evolve_findings
from diffrgen.phantom.patients.sampling import sample_devices, sample_findings
from diffrgen.phantom.patients.states import Acquisition, Device, StudyState

MAX_STUDIES = 3


@dataclass(frozen=True, slots=True)
class Patient:
    """One patient; `index` names it within its data set, `studies` are in the order of their days."""

    index: int
    anatomy: Anatomy
    studies: tuple[StudyState, ...]


def patient_rng(options: PhantomOptions, index: int, stream: int = 0) -> np.random.Generator:
    """Return the generator of one patient's `stream`, never shared between patients.

    stream: 0 truth, 1 reports, 2 indications, 3 impressions.
    """
    return np.random.default_rng(np.random.SeedSequence(entropy=options.seed, spawn_key=(index, stream)))


def study_counts(options: PhantomOptions) -> list[int]:
    """Return how many studies each patient has; they add up to `options.studies`."""
    rng = np.random.default_rng(np.random.SeedSequence(entropy=options.seed, spawn_key=(2**31,)))
    # With chances p2, p3 of two and three studies the share of follow-ups is f = e / (1 + e), e = p2 + 2 p3.
    extra = options.follow_ups / (1.0 - options.follow_ups)
    third = 0.22 * extra
    second = extra - 2.0 * third
    chances = (1.0 - second - third, second, third)
    counts: list[int] = []
    left = options.studies
    while left > 0:
        counts.append(min(left, 1 + int(rng.choice(MAX_STUDIES, p=chances))))
        left -= counts[-1]
    return counts


def sample_patient(options: PhantomOptions, index: int, studies: int) -> Patient:
    """Draw patient `index` with `studies` studies."""
    rng = patient_rng(options, index)
    anatomy = sample_anatomy(rng)
    findings = sample_findings(rng)
    devices = sample_devices(findings, rng)
    history = [StudyState(0, findings, devices, sample_acquisition(devices, rng))]
    for _ in range(studies - 1):
        prior = history[-1]
        findings = evolve_findings(prior, rng)
        devices = evolve_devices(prior, findings, rng)
        interval = int(rng.choice([1, 2, 3, 5, 7, 14, 30, 90]))
        shot = sample_acquisition(devices, rng)
        history.append(StudyState(prior.days + interval, findings, devices, shot, interval))
    return Patient(index, anatomy, tuple(history))


def sample_acquisition(devices: tuple[Device, ...], rng: np.random.Generator) -> Acquisition:
    """Draw the acquisition of a radiograph: intubated patients lie, others mostly stand."""
    lying = any(device.kind in ("endotracheal tube", "nasogastric tube") for device in devices)
    portable = bool(rng.random() < (0.95 if lying else 0.3))
    rotated = rng.random() < (0.2 if portable else 0.06)
    return Acquisition(
        view="AP" if portable else "PA",
        rotation=float(rng.choice([-1.0, 1.0]) * rng.uniform(0.04, 0.075))
        if rotated
        else float(rng.uniform(-0.02, 0.02)),
        tilt=float(rng.normal(0.0, 0.025 if portable else 0.012)),
        shift=(float(rng.normal(0.0, 0.02)), float(rng.normal(0.0, 0.025))),
        zoom=float(rng.uniform(0.93, 1.06)),
        inspiration=float(rng.uniform(-0.12, -0.07))
        if rng.random() < (0.3 if portable else 0.1)
        else float(rng.uniform(-0.03, 0.03)),
        gain=float(rng.uniform(0.92, 1.08)),
        gamma=float(rng.uniform(0.85, 1.2)),
        seed=int(rng.integers(2**62)),
        stomach_gas=float(rng.uniform(0.4, 1.0)) if rng.random() < 0.7 else 0.0,
    )

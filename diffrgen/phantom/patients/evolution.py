"""How a patient's findings and devices change from one study to the next, with the change recorded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

import numpy as np

from diffrgen.phantom.patients.sampling import BASE, sample_device, sample_finding
from diffrgen.phantom.patients.states import DISEASES, Change, Device, FindingState, Grade, StudyState

# Chances that a finding grows by one grade, shrinks by one (a mild one resolves), or clears at once.
COURSE: Mapping[str, tuple[float, float, float]] = MappingProxyType(
    {
        "cardiomegaly": (0.1, 0.06, 0.0),
        "enlarged cardiomediastinum": (0.1, 0.1, 0.05),
        "lung opacity": (0.2, 0.2, 0.12),
        "lung lesion": (0.25, 0.1, 0.0),
        "edema": (0.2, 0.25, 0.12),
        "consolidation": (0.18, 0.25, 0.1),
        "pneumonia": (0.18, 0.25, 0.1),
        "atelectasis": (0.2, 0.2, 0.12),
        "pneumothorax": (0.15, 0.25, 0.15),
        "pleural effusion": (0.22, 0.22, 0.06),
        "pleural other": (0.08, 0.0, 0.0),
        "fracture": (0.0, 0.0, 0.0),
    }
)
ONSET = 0.2
KEPT_DEVICES = frozenset({"pacemaker", "sternal wires"})


def evolve_findings(prior: StudyState, rng: np.random.Generator) -> dict[str, FindingState]:
    """Draw the findings of the study after `prior`; each present or resolved one carries its change."""
    findings: dict[str, FindingState] = {}
    for old in prior.present:
        grade = _next_grade(old, rng)
        findings[old.finding] = replace(old, grade=grade, change=grade_change(old.grade, grade))
    if prior.present or rng.random() < 0.2:
        for name in DISEASES:
            if prior.grade(name) == Grade.ABSENT and rng.random() < BASE[name] * ONSET:
                findings[name] = replace(sample_finding(name, findings, rng), change="new")
    return {name: findings[name] for name in DISEASES if name in findings}


def _next_grade(old: FindingState, rng: np.random.Generator) -> Grade:
    grow, shrink, clear = COURSE[old.finding]
    draw = rng.random()
    if draw < clear:
        return Grade.ABSENT
    if draw < clear + grow:
        return Grade(min(old.grade + 1, Grade.SEVERE))
    if draw < clear + grow + shrink:
        return Grade.ABSENT if old.grade <= Grade.MILD else Grade(old.grade - 1)
    return old.grade


def grade_change(before: Grade, now: Grade) -> Change:
    """Return the change that two grades of one finding mean; at least one of them is present."""
    if before == Grade.ABSENT:
        return "new"
    if now == Grade.ABSENT:
        return "resolved"
    if now == before:
        return "unchanged"
    return "increased" if now > before else "decreased"


def evolve_devices(
    prior: StudyState, findings: Mapping[str, FindingState], rng: np.random.Generator
) -> tuple[Device, ...]:
    """Draw the devices of the study after `prior`: kept, removed or new."""
    devices = []
    for old in prior.present_devices:
        removed = old.kind not in KEPT_DEVICES and rng.random() < 0.2
        devices.append(replace(old, change="resolved" if removed else "unchanged"))
    kinds = {device.kind for device in devices}
    sick = any(state.grade >= Grade.MODERATE for state in findings.values())
    for kind, chance in (("central line", 0.08), ("nasogastric tube", 0.04), ("endotracheal tube", 0.04)):
        if sick and kind not in kinds and rng.random() < chance:
            devices.append(replace(sample_device(kind, findings, rng), change="new"))
    if "chest tube" not in kinds and _needs_drain(findings) and rng.random() < 0.3:
        devices.append(replace(sample_device("chest tube", findings, rng), change="new"))
    return tuple(devices)


def _needs_drain(findings: Mapping[str, FindingState]) -> bool:
    effusion = findings.get("pleural effusion")
    air = findings.get("pneumothorax")
    return bool((air and air.grade >= Grade.MODERATE) or (effusion and effusion.grade == Grade.SEVERE))

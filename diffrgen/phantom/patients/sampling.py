"""Draw the findings and devices of a patient's first study, long-tailed and correlated."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from diffrgen.phantom.patients.states import DISEASES, ZONED, Device, FindingState, Grade, Side, Zone

HEALTHY = 0.33

# Chance of a finding in a study that is not healthy, before one drawn earlier (`GIVEN`) raises it.
BASE: Mapping[str, float] = MappingProxyType(
    {
        "cardiomegaly": 0.275,
        "edema": 0.12,
        "pleural effusion": 0.255,
        "atelectasis": 0.215,
        "lung opacity": 0.29,
        "consolidation": 0.07,
        "pneumonia": 0.12,
        "pneumothorax": 0.055,
        "enlarged cardiomediastinum": 0.054,
        "lung lesion": 0.043,
        "fracture": 0.036,
        "pleural other": 0.024,
    }
)
GIVEN: Mapping[tuple[str, str], float] = MappingProxyType(
    {
        ("edema", "cardiomegaly"): 0.33,
        ("pleural effusion", "cardiomegaly"): 0.36,
        ("pleural effusion", "edema"): 0.58,
        ("atelectasis", "pleural effusion"): 0.48,
    }
)
# Share of present findings that are only subtle; the rest is mild, moderate or severe by `GRADES`.
SUBTLE: Mapping[str, float] = MappingProxyType(
    {
        "cardiomegaly": 0.06,
        "edema": 0.13,
        "pleural effusion": 0.06,
        "atelectasis": 0.10,
        "lung opacity": 0.05,
        "consolidation": 0.14,
        "pneumonia": 0.35,
        "pneumothorax": 0.07,
        "enlarged cardiomediastinum": 0.10,
        "lung lesion": 0.12,
        "fracture": 0.08,
        "pleural other": 0.12,
    }
)
GRADES = (0.42, 0.36, 0.22)
ZONE_CHANCE: Mapping[str, tuple[float, float, float]] = MappingProxyType(
    {
        "lung opacity": (0.25, 0.3, 0.45),
        "lung lesion": (0.4, 0.35, 0.25),
        "consolidation": (0.35, 0.2, 0.45),
        "pneumonia": (0.2, 0.3, 0.5),
        "atelectasis": (0.0, 0.2, 0.8),
        "fracture": (0.3, 0.4, 0.3),
    }
)
SIDE_CHANCE: Mapping[str, tuple[float, float, float]] = MappingProxyType(
    {
        "pleural effusion": (0.32, 0.33, 0.35),
        "atelectasis": (0.36, 0.3, 0.34),
        "pneumothorax": (0.46, 0.5, 0.04),
        "pleural other": (0.4, 0.4, 0.2),
        "fracture": (0.5, 0.5, 0.0),
        "consolidation": (0.44, 0.5, 0.06),
        "lung lesion": (0.48, 0.52, 0.0),
        "lung opacity": (0.36, 0.4, 0.24),
        "pneumonia": (0.35, 0.4, 0.25),
    }
)
SIDES: tuple[Side, ...] = ("left", "right", "bilateral")
ZONES: tuple[Zone, ...] = ("upper", "mid", "lower")


def sample_findings(rng: np.random.Generator) -> dict[str, FindingState]:
    """Draw which findings a first study shows, with grade, side and zone."""
    if rng.random() < HEALTHY:
        return {}
    names: list[str] = []
    while not names:
        for name, chance in BASE.items():
            raised = [GIVEN[name, earlier] for earlier in names if (name, earlier) in GIVEN]
            if rng.random() < max([chance, *raised]):
                names.append(name)
    findings: dict[str, FindingState] = {}
    for name in names:
        findings[name] = sample_finding(name, findings, rng)
    return {name: findings[name] for name in DISEASES if name in findings}


def sample_finding(name: str, others: Mapping[str, FindingState], rng: np.random.Generator) -> FindingState:
    """Draw one finding; the zones that `others` occupy or hide are avoided."""
    subtle = rng.random() < SUBTLE[name]
    grade = Grade.SUBTLE if subtle else Grade(int(Grade.MILD + rng.choice(3, p=GRADES)))
    side, zone = _free_place(name, others, rng)
    return FindingState(name, grade, side=side, zone=zone)


def _free_place(
    name: str, others: Mapping[str, FindingState], rng: np.random.Generator
) -> tuple[Side | None, Zone | None]:
    side: Side | None = None
    zone: Zone | None = None
    for _ in range(8):
        if name in SIDE_CHANCE:
            side = SIDES[rng.choice(3, p=SIDE_CHANCE[name])]
        if name in ZONED:
            zone = ZONES[rng.choice(3, p=ZONE_CHANCE[name])]
        candidate = FindingState(name, Grade.MILD, side=side, zone=zone)
        if not any(_collide(candidate, other) for other in others.values()):
            break
    return side, zone


def _collide(first: FindingState, second: FindingState) -> bool:
    if not set(first.sides) & set(second.sides) or first.zone is None:
        return False
    if "fracture" in (first.finding, second.finding):
        return False
    if second.finding == "pleural effusion":
        return first.zone == "lower" and second.grade >= Grade.MODERATE and first.finding != "atelectasis"
    if second.finding == "pneumothorax":
        return second.grade == Grade.SEVERE or first.zone == "upper"
    return first.zone == second.zone


def sample_devices(findings: Mapping[str, FindingState], rng: np.random.Generator) -> tuple[Device, ...]:
    """Draw the support devices of a first study; sick patients carry more."""
    if rng.random() >= (0.325 if findings else 0.11):
        return ()
    kinds: list[str] = []
    intensive = rng.random() < (0.42 if findings else 0.15)
    chances = {
        "endotracheal tube": 0.75 if intensive else 0.0,
        "nasogastric tube": 0.7 if intensive else 0.08,
        "central line": 0.7 if intensive else 0.4,
        "chest tube": 0.55 if "pneumothorax" in findings else 0.15 if "pleural effusion" in findings else 0.0,
        "pacemaker": 0.06 if intensive else 0.3,
        "sternal wires": 0.12 if intensive else 0.3,
    }
    while not kinds:
        kinds = [kind for kind, chance in chances.items() if rng.random() < chance]
    return tuple(sample_device(kind, findings, rng) for kind in kinds)


def sample_device(kind: str, findings: Mapping[str, FindingState], rng: np.random.Generator) -> Device:
    """Draw the side and the tip of one device."""
    if kind == "endotracheal tube":
        return Device(kind, tip=str(rng.choice([2, 3, 4, 5, 6, 7], p=[0.1, 0.2, 0.25, 0.2, 0.15, 0.1])))
    if kind == "nasogastric tube":
        return Device(kind, tip="stomach" if rng.random() < 0.8 else "esophagus")
    if kind == "central line":
        route = str(rng.choice(["jugular", "subclavian", "picc"], p=[0.45, 0.25, 0.3]))
        end = str(rng.choice(["svc", "junction", "atrium"], p=[0.5, 0.3, 0.2]))
        return Device(kind, side="right" if rng.random() < 0.65 else "left", tip=f"{route} {end}")
    if kind == "pacemaker":
        return Device(kind, side="left" if rng.random() < 0.85 else "right", tip=str(rng.choice(["single", "dual"])))
    if kind == "chest tube":
        cause = findings.get("pneumothorax") or findings.get("pleural effusion")
        side = cause.side if cause and cause.side in ("left", "right") else SIDES[int(rng.integers(2))]
        return Device(kind, side=side)
    return Device(kind)

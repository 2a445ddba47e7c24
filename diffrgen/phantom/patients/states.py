"""The exact truth behind a phantom study: findings with grade, side, zone and change, and devices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Literal

from diffrgen.labels.findings import FINDINGS, State

Side = Literal["left", "right", "bilateral"]
Zone = Literal["upper", "mid", "lower"]
Change = Literal["new", "increased", "decreased", "unchanged", "resolved"]
Severity = Literal["mild", "moderate", "severe"]

SEVERITIES: tuple[Severity, ...] = ("mild", "moderate", "severe")
DISEASES: tuple[str, ...] = FINDINGS[:12]
SUPPORT_DEVICES = "support devices"
SIDED = frozenset(DISEASES) - {"enlarged cardiomediastinum", "cardiomegaly", "edema"}
ZONED = frozenset({"lung opacity", "lung lesion", "consolidation", "pneumonia", "atelectasis", "fracture"})
PARENCHYMAL = ("lung opacity", "lung lesion", "edema", "consolidation", "pneumonia", "atelectasis")


class Grade(IntEnum):
    """The grade of a finding; a report calls a `SUBTLE` one possible."""

    ABSENT = 0
    SUBTLE = 1
    MILD = 2
    MODERATE = 3
    SEVERE = 4


@dataclass(frozen=True, slots=True)
class FindingState:
    """One finding of one study; `grade` ABSENT only together with `change` "resolved"."""

    finding: str
    grade: Grade
    side: Side | None = None
    zone: Zone | None = None
    change: Change | None = None

    @property
    def state(self) -> State:
        """Return the state in the report: positive, uncertain if subtle, negative if resolved."""
        if self.grade == Grade.ABSENT:
            return State.NEGATIVE
        return State.UNCERTAIN if self.grade == Grade.SUBTLE else State.POSITIVE

    @property
    def severity(self) -> Severity | None:
        """Return the severity of a positive finding, None for a subtle or resolved one."""
        return SEVERITIES[self.grade - Grade.MILD] if self.grade >= Grade.MILD else None

    @property
    def sides(self) -> tuple[int, ...]:
        """Return the sides as signs of x in the image: +1 the patient's left, -1 the right."""
        return {"left": (1,), "right": (-1,), "bilateral": (-1, 1), None: (-1, 1)}[self.side]


@dataclass(frozen=True, slots=True)
class Device:
    """One support device.

    `tip` is where it ends: centimetres above the carina for an endotracheal tube, "stomach" or "esophagus" for a
    nasogastric one, route and end ("jugular svc") for a central line; for a pacemaker its leads, "single" or "dual".
    """

    kind: str
    side: Side | None = None
    tip: str = ""
    change: Change | None = None


@dataclass(frozen=True, slots=True)
class Acquisition:
    """Acquisition of one radiograph: view, position, inspiration, exposure; `seed` draws its noise."""

    view: Literal["PA", "AP"]
    rotation: float
    tilt: float
    shift: tuple[float, float]
    zoom: float
    inspiration: float
    gain: float
    gamma: float
    seed: int
    stomach_gas: float

    @property
    def low_volumes(self) -> bool:
        """Return whether inspiration was poor enough to be mentioned."""
        return self.inspiration < -0.06

    @property
    def rotated(self) -> Side | None:
        """Return the side that the patient is turned to, None when straight."""
        if abs(self.rotation) < 0.035:
            return None
        return "left" if self.rotation > 0 else "right"


@dataclass(frozen=True, slots=True)
class StudyState:
    """One study: its findings by name, present or resolved, its devices, and the acquisition of the radiograph.

    `days` counts from the patient's first study, `interval` from the one before; 0 marks a first study.
    """

    days: int
    findings: Mapping[str, FindingState]
    devices: tuple[Device, ...]
    acquisition: Acquisition
    interval: int = 0

    @property
    def follow_up(self) -> bool:
        """Return whether the patient has a prior study."""
        return self.interval > 0

    def grade(self, finding: str) -> Grade:
        """Return the grade of `finding`, ABSENT if there is none."""
        found = self.findings.get(finding)
        return found.grade if found else Grade.ABSENT

    @property
    def present(self) -> tuple[FindingState, ...]:
        """Return the findings in this image, in the order of `DISEASES`."""
        return tuple(self.findings[name] for name in DISEASES if self.grade(name) > Grade.ABSENT)

    @property
    def device_state(self) -> State:
        """Return the state of support devices in the report: negative if all are removed, blank if there were none."""
        if not self.devices:
            return State.BLANK
        return State.POSITIVE if self.present_devices else State.NEGATIVE

    @property
    def present_devices(self) -> tuple[Device, ...]:
        """Return the devices in this image, without those removed since the last study."""
        return tuple(device for device in self.devices if device.change != "resolved")


def device_change(devices: tuple[Device, ...]) -> Change | None:
    """Return the change of all devices: new before removed before unchanged, None for a first study."""
    changes = {device.change for device in devices}
    if "new" in changes:
        return "new"
    if "resolved" in changes:
        return "resolved" if changes == {"resolved"} else "decreased"
    return "unchanged" if "unchanged" in changes else None

"""The grammar's wordings as data: read once from `wordings/*.json`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from diffrgen.phantom.patients.states import SEVERITIES, Severity, Side, Zone


@dataclass(frozen=True, slots=True)
class Wordings:
    """Every list of wordings.

    `slots` maps a slot's name to value -> phrases. `findings` maps a finding to noun phrases ("full" with
    severity, "plain" without, "bare" alone) and whole sentences by state. `frames` holds sentences about
    any noun phrase, by state or change.
    """

    slots: Mapping[str, Mapping[str, list[str]]]
    frames: Mapping[str, Any]
    findings: Mapping[str, Mapping[str, list[str]]]
    joint: tuple[Mapping[str, Any], ...]
    devices: Mapping[str, Any]
    normals: Mapping[str, list[str]]


SEVERITY_SLOTS = ("size", "degree", "adverb")
SIDE_SLOTS = ("side", "sided", "lung", "chest")
PLACE_SLOTS = ("place", "placed", "rib")
VERBS: Mapping[str, tuple[str, str]] = {
    "is": ("is", "are"),
    "has": ("has", "have"),
    "shows": ("shows", "show"),
}


@cache
def load_wordings() -> Wordings:
    """Return the wordings that ship with the package."""
    folder = files("diffrgen.phantom.language") / "wordings"

    def read(name: str) -> Any:
        return json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))

    return Wordings(
        slots=read("slots"),
        frames=read("frames"),
        findings=read("findings"),
        joint=tuple(read("joint")),
        devices=read("devices"),
        normals=read("normals"),
    )


@dataclass(frozen=True, slots=True)
class Template:
    """One wording taken apart: "severe|..." fixes the severity it may tell, a leading "~" marks a plural."""

    text: str
    severity: Severity | None
    plural: bool


def parse_template(wording: str) -> Template:
    """Return `wording` without its marks."""
    severity: Severity | None = None
    for name in SEVERITIES:
        if wording.startswith(f"{name}|"):
            severity, wording = name, wording[len(name) + 1 :]
    return Template(wording.removeprefix("~"), severity, wording.startswith("~"))


def read_location(value: str) -> tuple[Side, Zone | None]:
    """Return side and zone of a slot's value such as "left" or "left lower"."""
    side, _, zone = value.partition(" ")
    return side, zone or None  # type: ignore[return-value]

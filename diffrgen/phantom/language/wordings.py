"""The grammar's wordings as data: read once from `wordings/*.json`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from math import ceil
from typing import Any, TypeVar

from diffrgen.phantom.patients.states import SEVERITIES, Severity, Side, Zone

T = TypeVar("T")


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
def load_wordings(variety: float = 1.0) -> Wordings:
    """Return the wordings that ship with the package; of each list its first ones, the share `variety` of them."""
    folder = files("diffrgen.phantom.language") / "wordings"

    def read(name: str) -> Any:
        return json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))

    def first(name: str) -> Any:
        return _first_of_each(read(name), variety)

    return Wordings(
        slots=first("slots"),
        frames=first("frames"),
        findings=first("findings"),
        joint=tuple(first_of(read("joint"), variety)),
        devices=first("devices"),
        normals=first("normals"),
    )


def first_of(wordings: Sequence[T], variety: float) -> list[T]:
    """Return the first of `wordings`, the share `variety` of them and one at least."""
    return list(wordings[: max(1, ceil(variety * len(wordings)))])


def _first_of_each(wordings: Any, variety: float) -> Any:
    if isinstance(wordings, list):
        return first_of(wordings, variety)
    return {name: _first_of_each(inner, variety) for name, inner in wordings.items()}


@dataclass(frozen=True, slots=True)
class Template:
    """One wording taken apart: "severe|..." fixes the severity it expresses, a leading "~" marks a plural."""

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

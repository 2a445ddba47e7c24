"""Sentences about support devices."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from diffrgen.phantom.language.phrasing import fill, pick
from diffrgen.phantom.language.wordings import Template, Wordings
from diffrgen.phantom.patients.states import Device, FindingState, Grade


def device_sentence(device: Device, words: Wordings, rng: np.random.Generator) -> str:
    """Return the sentence that mentions `device`, with its change in a later study."""
    entry = words.devices[device.kind]
    tip_kind, names = _names(entry, device)
    name = pick(names, rng)
    if device.change == "resolved":
        return pick(words.devices["removed"], rng).replace("{name}", name)
    text = pick(entry["present"], rng)
    text = fill_names(text, name, pick(entry["tips"][tip_kind], rng))
    state = FindingState("support devices", Grade.MILD, side=device.side)
    text = fill(Template(text, None, False), state, words, rng)
    return text + (pick(words.devices["tails"][device.change], rng) if device.change else "")


def fill_names(text: str, name: str, tip: str) -> str:
    """Return a device's wording with its name and tip."""
    article = "an" if name[0] in "aeiou" else "a"
    text = text.replace("{aname}", f"{article} {name}").replace("{name0}", name)
    return text.replace("{name}", name).replace("{tip}", tip)


def _names(entry: Any, device: Device) -> tuple[str, list[str]]:
    names = entry["names"]
    if isinstance(names, dict):
        route, end = device.tip.split()
        return end, names[route]
    return (device.tip if device.tip in entry["tips"] else ""), names


def device_wordings(words: Wordings) -> Iterator[tuple[str, str, bool]]:
    """Yield (kind, wording with only side slots left, present) for every name and tip of every device."""
    for kind, entry in words.devices.items():
        if kind in ("tails", "removed"):
            continue
        names = entry["names"]
        every = [name for group in names.values() for name in group] if isinstance(names, dict) else names
        tips = [tip for group in entry["tips"].values() for tip in group]
        for name in every:
            for wording in entry["present"]:
                for tip in tips:
                    yield kind, fill_names(wording, name, tip), True
            for wording in words.devices["removed"]:
                yield kind, wording.replace("{name}", name), False

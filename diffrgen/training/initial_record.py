"""The record of a training's start: which tensors of the network are the start's, which are new, and why."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from accelerate import PartialState
from torch import Tensor, nn

from diffrgen.pipeline.settings import load_json, save_json

# Files of a run: the initial run's network, so that a resumed training does not require it; what was loaded from it.
NETWORK, RECORD = "start", "initialisation.json"
# Computed from the training labels.
COMPUTED = "classifier.class_prior"


@dataclass(frozen=True)
class NewTensors:
    """Tensors of one part of the network that are not the start's, and why: "absent", or the two shapes."""

    part: str
    names: tuple[str, ...]
    reason: str


@dataclass(frozen=True)
class Initialisation:
    """The tensors that a training took from its initial run, stored as initialisation.json.

    start: hub name, or name of the folder; weights: SHA-256 of each of its files of weights; taken: how many tensors of each
    part of the network are the start's; new: those that are not; unused: tensors of the start that the network does not have.
    """

    start: str
    weights: Mapping[str, str]
    taken: Mapping[str, int]
    new: tuple[NewTensors, ...] = ()
    unused: tuple[str, ...] = ()
    parts: tuple[str, ...] = ("tokenizer", "text rules", "retriever")

    def lines(self) -> list[str]:
        """Return the record as text, a line for each fact."""
        count = sum(self.taken.values())
        parts = (*self.parts, f"{count} tensors ({_counted(self.taken)})")
        lines = [f"start: {self.start}; taken: {', '.join(parts)}"]
        lines += [f"new: {one.part} ({_named(one.names)}): {one.reason}" for one in self.new]
        if self.unused:
            lines.append(f"not used from the initial run: {_named(self.unused)}")
        return [*lines, "built from the training split: index, prior of Eq. 9"]


def write_record(
    run: Path,
    taken: Mapping[str, int],
    new: tuple[NewTensors, ...],
    unused: tuple[str, ...],
    *,
    log: Callable[[str], None],
) -> None:
    """Complete the record that was kept in the folder `run` with its start by what `take_tensors` returned.

    `log` gets it in words, and the main process writes it as initialisation.json.
    """
    record = replace(load_json(Initialisation, run / NETWORK / RECORD), taken=taken, new=new, unused=unused)
    log("\n".join(record.lines()))
    if PartialState().is_main_process:
        save_json(record, run / RECORD)


def take_tensors(
    model: nn.Module, tensors: Mapping[str, Tensor]
) -> tuple[dict[str, int], tuple[NewTensors, ...], tuple[str, ...]]:
    """Copy into `model` each of `tensors` that it has by name and shape.

    Returns how many of each part were taken, those that are new with the reason, and the names of `tensors` without a place.
    """
    own = model.state_dict()
    taken: dict[str, int] = {}
    new: dict[tuple[str, str], list[str]] = {}
    for name, tensor in own.items():
        reason = _reason(name, tensor, tensors.get(name))
        if reason is None:
            with torch.no_grad():
                tensor.copy_(tensors[name])
            taken[_part(name)] = taken.get(_part(name), 0) + 1
        elif name != COMPUTED:
            new.setdefault((_part(name), reason), []).append(name)
    rest = tuple(name for name in tensors if name not in own)
    return taken, tuple(NewTensors(part, tuple(names), why) for (part, why), names in new.items()), rest


def _reason(name: str, tensor: Tensor, given: Tensor | None) -> str | None:
    """Return why a tensor of the network is not taken, None if it is."""
    if name == COMPUTED:
        return "of the training labels"
    if given is None:
        return "absent"
    return None if given.shape == tensor.shape else f"shape {tuple(given.shape)}, needed {tuple(tensor.shape)}"


def _part(name: str) -> str:
    return name.partition(".")[0]


def _counted(taken: Mapping[str, int]) -> str:
    return ", ".join(f"{part} {count}" for part, count in taken.items())


def _named(names: Sequence[str], shown: int = 3) -> str:
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return f"{', '.join(names[:shown])}{more}"

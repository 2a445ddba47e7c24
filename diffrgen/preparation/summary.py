"""The kept and the excluded records of an archive, with counts and reasons: printed and written as JSON."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from diffrgen.labels import base_frequencies
from diffrgen.records import SPLITS, Split

SHOWN_EXAMPLES = 5
Unit = Literal["studies", "images"]


@dataclass
class SplitCount:
    """The contents of one split."""

    entries: int = 0
    studies: int = 0
    images: int = 0
    patients: set[str] = field(default_factory=set)
    states: list[bytes] = field(default_factory=list)

    def to_dict(self) -> dict[str, int]:
        """Return the counts as plain data."""
        return {
            "entries": self.entries,
            "studies": self.studies,
            "images": self.images,
            "patients": len(self.patients),
        }

    def frequencies(self) -> dict[str, float]:
        """Return the share of the labelled entries in which each finding is positive; empty if none has labels."""
        if not self.states:
            return {}
        return base_frequencies(np.frombuffer(b"".join(self.states), np.uint8).reshape(len(self.states), -1))


@dataclass
class Summary:
    """Counts of one preparation.

    options: the choices, as plain data. files: what was read, below the archive's folder. read: what the archive
    holds, by name. notes: what a reader should know, sentence by sentence. dropped: for studies and for images,
    reason -> count; `examples` holds the first ids of each reason.
    """

    data_set: str
    options: dict[str, Any]
    files: dict[str, str | None] = field(default_factory=dict)
    read: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    kept: dict[Split, SplitCount] = field(default_factory=lambda: {split: SplitCount() for split in SPLITS})
    dropped: dict[Unit, Counter[str]] = field(default_factory=lambda: {"studies": Counter(), "images": Counter()})
    examples: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def drop(self, unit: Unit, reason: str, name: str) -> None:
        """Count the study or image `name` as dropped for `reason`."""
        self.dropped[unit][reason] += 1
        if len(self.examples[reason]) < SHOWN_EXAMPLES:
            self.examples[reason].append(name)

    def keep(self, split: Split, *, patient: str, entries: int, images: int, states: bytes | None = None) -> None:
        """Count one study of `split` as kept, with its entries in the file, its images and its 14 states if known."""
        count = self.kept[split]
        count.entries += entries
        count.studies += 1
        count.images += images
        count.patients.add(patient)
        if states is not None:
            count.states += [states] * entries

    @property
    def entries(self) -> int:
        """Number of entries in the annotation file."""
        return sum(count.entries for count in self.kept.values())

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain data; the same archive and options give the same."""
        return {
            "data_set": self.data_set,
            "options": self.options,
            "files": self.files,
            "read": self.read,
            "kept": {split: count.to_dict() for split, count in self.kept.items()},
            "base_frequencies": {split: count.frequencies() for split, count in self.kept.items() if count.states},
            "dropped": {unit: self._reasons(unit) for unit in self.dropped},
            "notes": self.notes,
        }

    def to_text(self) -> str:
        """Return the lines that a user reads in the terminal."""
        lines = ["read: " + ", ".join(f"{count:,} {name}" for name, count in self.read.items())]
        for split, count in self.kept.items():
            numbers = ", ".join(f"{number:,} {name}" for name, number in count.to_dict().items())
            lines.append(f"kept, {split}: {numbers}")
            if count.states:
                shares = ", ".join(f"{name} {share:.1%}" for name, share in count.frequencies().items())
                lines.append(f"positive, {split}: {shares}")
        for unit in self.dropped:
            lines += [
                f"dropped {unit}: {count:,} {reason} (such as {', '.join(self.examples[reason][:2])})"
                for reason, count in self.dropped[unit].most_common()
            ]
        return "\n".join(lines + [f"note: {note}" for note in self.notes])

    def _reasons(self, unit: Unit) -> dict[str, dict[str, Any]]:
        return {
            reason: {"count": count, "examples": self.examples[reason]}
            for reason, count in self.dropped[unit].most_common()
        }

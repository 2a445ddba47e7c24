"""Read a report back: exactly what the grammar wrote, and the best reading of recombined wordings."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

import numpy as np

from diffrgen.labels.findings import FINDINGS, NO_FINDING, State
from diffrgen.phantom.language.mention import Mention
from diffrgen.phantom.language.reading import read_sentence
from diffrgen.phantom.patients.states import SUPPORT_DEVICES, Change, Device, Severity, Side, Zone, device_change

Value = TypeVar("Value")
_SENTENCES = re.compile(r"[.;:!?\n]+")
_PRECEDENCE = (State.BLANK, State.NEGATIVE, State.UNCERTAIN, State.POSITIVE)


@dataclass(frozen=True, slots=True)
class FindingReading:
    """The content of a report about one finding; severity only of a positive finding."""

    state: State
    severity: Severity | None = None
    side: Side | None = None
    zone: Zone | None = None
    change: Change | None = None


@dataclass(frozen=True, slots=True)
class ParsedReport:
    """A report's readings by finding (blank ones left out), its devices, and its sentences counted.

    `partial` counts sentences read clause by clause, nearly or by cues, `unmatched` those that no wording
    matched and without content.
    """

    findings: Mapping[str, FindingReading]
    devices: tuple[Device, ...]
    sentences: int
    partial: int
    unmatched: int

    @property
    def labels(self) -> tuple[int, ...]:
        """Return the 14 states; no finding is positive iff nothing but devices is positive or uncertain."""
        states = [int(self.findings[name].state) if name in self.findings else 0 for name in FINDINGS]
        stated = {State.POSITIVE, State.UNCERTAIN}
        sick = any(states[i] in stated for i, name in enumerate(FINDINGS) if name != SUPPORT_DEVICES and i != NO_FINDING)
        states[NO_FINDING] = int(State.BLANK if sick else State.POSITIVE)
        return tuple(states)


class GrammarParser:
    """Labeler of reports in the grammar's wordings; case, spacing and unknown words do not matter."""

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Return states, (len(texts), 14) int64 in the order of `FINDINGS`, values of `State`."""
        if isinstance(texts, str):
            raise ValueError("expected a sequence of reports, got one string; put it into a list")
        labels = [self.parse(text).labels for text in texts]
        return np.asarray(labels, dtype=np.int64).reshape(len(texts), len(FINDINGS))

    def parse(self, text: str) -> ParsedReport:
        """Return all findings, devices and changes of `text`."""
        sentences = [part.strip() for part in _SENTENCES.split(text.lower()) if part.strip()]
        readings = [_read(sentence) for sentence in sentences]
        mentions = [mention for reading in readings for mention in reading.mentions]
        partial = sum(bool(reading.mentions) and not reading.exact for reading in readings)
        unmatched = sum(not reading.mentions and not reading.exact for reading in readings)
        return ParsedReport(_merge(mentions), _devices(mentions), len(sentences), partial, unmatched)


_read = lru_cache(maxsize=65536)(read_sentence)


def _devices(mentions: list[Mention]) -> tuple[Device, ...]:
    devices = [mention for mention in mentions if mention.device is not None]
    return tuple(Device(str(each.device), side=each.side, change=each.change) for each in devices)


def _merge(mentions: list[Mention]) -> dict[str, FindingReading]:
    merged: dict[str, FindingReading] = {}
    for name in FINDINGS:
        own = [mention for mention in mentions if mention.finding == name]
        if not own:
            continue
        state = max((mention.state for mention in own), key=_PRECEDENCE.index)
        leading = [mention for mention in own if mention.state == state]
        merged[name] = FindingReading(
            state=state,
            severity=_first(mention.severity for mention in leading) if state == State.POSITIVE else None,
            side=_first(mention.side for mention in leading),
            zone=_first(mention.zone for mention in leading),
            change=_first(mention.change for mention in leading),
        )
    if SUPPORT_DEVICES in merged:
        change = device_change(_devices(mentions))
        merged[SUPPORT_DEVICES] = FindingReading(merged[SUPPORT_DEVICES].state, change=change)
    return merged


def _first(values: Iterable[Value | None]) -> Value | None:
    return next((value for value in values if value is not None), None)

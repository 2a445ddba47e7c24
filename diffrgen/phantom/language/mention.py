"""One mention of a finding in one sentence: the result of the sentence parsers."""

from __future__ import annotations

from dataclasses import dataclass, replace

from diffrgen.labels.findings import State
from diffrgen.phantom.patients.states import SIDED, SUPPORT_DEVICES, ZONED, Change, Severity, Side, Zone


@dataclass(frozen=True, slots=True)
class Mention:
    """One mention of a finding in one sentence."""

    finding: str
    state: State
    severity: Severity | None = None
    side: Side | None = None
    zone: Zone | None = None
    change: Change | None = None
    device: str | None = None


def trim(mention: Mention) -> Mention:
    """Return `mention` without what its finding and state do not have."""
    keeps_side = mention.finding in SIDED or mention.finding == SUPPORT_DEVICES
    return replace(
        mention,
        severity=mention.severity if mention.state == State.POSITIVE and mention.device is None else None,
        side=mention.side if keeps_side else None,
        zone=mention.zone if mention.finding in ZONED else None,
    )

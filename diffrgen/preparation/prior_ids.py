"""The id of the prior study of each study, for studies sorted by patient, then time."""

from __future__ import annotations


class PriorIds:
    """The id of the prior study of each study, for studies sorted by patient, then time."""

    def __init__(self) -> None:
        self._patient = ""
        self._time: float | None = None
        self._before: str | None = None
        self._latest: str | None = None

    def next(self, patient: str, time: float | None, name: str) -> str | None:
        """Return the prior of the study `name`; None for the first of a patient, and where no time is given.

        Studies of the same time are not each other's prior.
        """
        if patient != self._patient:
            self._patient, self._time, self._before, self._latest = patient, None, None, None
        if time is None:
            return None
        if time != self._time:
            self._time, self._before, self._latest = time, self._latest, name
        return self._before

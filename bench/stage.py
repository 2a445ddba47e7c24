"""A case made ready for timing: its inputs, what is true of it, and the contenders that passed the check."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from cases import Case, Direction
from contenders import Absent, Contender, build
from inputs import Step, input_sets
from memory import peak_bytes, saved_bytes
from truth import Truth


@dataclass(frozen=True)
class Entrant:
    """A contender that passed the check, with the errors that it made."""

    contender: Contender
    errors: dict[str, float]


class Stage:
    """One case on one device, for any number of contenders."""

    def __init__(self, case: Case, device: str, dtype: torch.dtype) -> None:
        torch._dynamo.reset()  # its limit of recompilations counts all cases together
        self.case, self.device, self.dtype = case, device, dtype
        self.sets = input_sets(case, dtype, device)
        self._truths: dict[bool, Truth] = {}
        self._entrants: dict[str, Entrant] = {}

    def enter(self, name: str, direction: Direction) -> Entrant:
        """The contender, checked; Absent where it cannot run, ValueError where it is wrong."""
        if name not in self._entrants:
            contender = build(name, self.case, self.device, self.dtype)
            errors = self._truth(contender.windowed).check(
                contender.function, contender.bound, backward=not contender.forward_only
            )
            self._entrants[name] = Entrant(contender, errors)
        entrant = self._entrants[name]
        if direction == "forward_backward" and entrant.contender.forward_only:
            raise Absent(entrant.contender.forward_only)
        return entrant

    def steps(self, entrant: Entrant, direction: Direction) -> list[Step]:
        """The timed function: a call on each set of inputs."""
        return [inputs.step(entrant.contender.function, direction) for inputs in self.sets]

    def saved_mb(self, entrant: Entrant, direction: Direction) -> float | None:
        """MB saved for backward beside inputs and output; None forward alone."""
        if direction == "forward":
            return None
        return saved_bytes(entrant.contender.function, self.sets[0].leaves) / 1e6

    def peak_mb(self, step: Step) -> float | None:
        """Peak MB of a call beyond its inputs; None if unknown."""
        peak = peak_bytes(step, self.device)
        return None if peak is None else peak / 1e6

    def _truth(self, windowed: bool) -> Truth:
        if windowed not in self._truths:
            self._truths[windowed] = Truth(self.case, self.sets[0].leaves, windowed=windowed)
        return self._truths[windowed]

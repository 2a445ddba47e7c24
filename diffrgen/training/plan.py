"""The steps of a training, counted in studies, so that a resumed training may use another batch size."""

from __future__ import annotations

from dataclasses import dataclass

from diffrgen.errors import DataError
from diffrgen.training.checkpoints import Progress


@dataclass(frozen=True)
class StepPlan:
    """`studies` of the training split, in batches of `batch_size` a process; a step takes `accumulate` of these from each of
    `processes`; an epoch has as many steps as are full. Raises DataError if that is none.
    """

    studies: int
    batch_size: int
    accumulate: int
    processes: int
    epochs: int

    def __post_init__(self) -> None:
        if not self.steps_an_epoch:
            raise DataError(
                f"needed {self.accumulate} batches of {self.batch_size} training studies for a step, got "
                f"{self.studies // (self.batch_size * self.processes)}; lower --optimiser.accumulate or "
                "--optimiser.batch-size"
            )

    @property
    def studies_a_step(self) -> int:
        """Studies that all processes together take in a step."""
        return self.batch_size * self.accumulate * self.processes

    @property
    def steps_an_epoch(self) -> int:
        """Steps of a complete epoch."""
        return self.studies // self.studies_a_step

    @property
    def planned(self) -> int:
        """Steps of all epochs, over which the learning rate and the temperature are laid out."""
        return self.epochs * self.steps_an_epoch

    def left(self, progress: Progress) -> int:
        """Return the steps left in the current epoch."""
        return (self.studies - progress.studies) // self.studies_a_step

    def place(self, progress: Progress) -> int:
        """Return the place among the `planned` steps, so that after it as many come as are left.

        It is the number of the last step, unless some steps were taken in batches of another size.
        """
        return (progress.epoch + 1) * self.steps_an_epoch - self.left(progress)

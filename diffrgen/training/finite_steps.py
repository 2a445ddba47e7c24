"""Training stays finite: a step of NaN or infinity is skipped in all processes, and nothing of the kind is saved."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from itertools import chain

import torch
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from torch import Tensor, nn
from tqdm import tqdm

from diffrgen.errors import DataError
from diffrgen.finite import StepGuard, all_finite, first_not_finite
from diffrgen.pipeline.dataset import Example
from diffrgen.training.options import TrainOptions


class FiniteSteps:
    """Takes the optimiser's steps that are finite and skips the others; `guard` counts these."""

    rate_option, start_anew = "--optimiser.learning-rate", "with --overwrite or in another --output"

    def __init__(
        self, options: TrainOptions, accelerator: Accelerator, network: nn.Module, optimiser: AcceleratedOptimizer
    ) -> None:
        self.options, self.accelerator, self.network, self.optimiser = options, accelerator, network, optimiser
        self.guard = StepGuard(network)

    def take(self, step: int, group: Sequence[Example], losses: Tensor, norm: Tensor) -> None:
        """Take `step` on the gradients at hand, or skip it: `losses` (4,), the loss first, `norm` of the gradient.

        Raises DataError with the likely cause where several in a row are skipped.
        """
        worst = torch.stack([losses.float().sum(), norm.float()])
        if self.accelerator.num_processes > 1:
            # A NaN in one process counts for all: either all processes take the step or none does.
            worst = self.accelerator.gather(worst[None]).sum(0)
        total, gradient = worst.tolist()
        scaler = self.accelerator.scaler
        # In fp16 the scaler handles an overflowing gradient: it reduces its scale and skips the step.
        scaled = scaler is not None and scaler.get_scale() >= 1
        if all_finite(total) and (all_finite(gradient) or scaled):
            self.optimiser.step()
            self.guard.passed()
            return
        if scaler is not None:
            scaler.update()
        loss = losses[0].item()
        self.guard.skip(step, loss=loss, norm=gradient, cause=self.likely_cause(group))
        if self.accelerator.is_main_process:
            tqdm.write(
                f"step {step}: skipped, for its loss ({loss:g}) or gradient (norm {gradient:g}) is not finite; "
                f"{self.guard.skipped} so far",
                file=sys.stderr,
            )

    def check(self, step: int) -> None:
        """Raise DataError if weights or the optimiser's moments are not finite: they are never saved."""
        moments = (
            (f"the moment {name} of a weight", value)
            for state in self.optimiser.optimizer.state.values()
            for name, value in state.items()
            if isinstance(value, Tensor)
        )
        broken = first_not_finite(chain(self.network.state_dict().items(), moments))
        if broken is not None:
            raise DataError(
                f"step {step}: {broken} is not finite, so nothing is saved; the checkpoints before stay as they are. Likely "
                f"cause: {self.likely_cause([])}"
            )

    def likely_cause(self, group: Sequence[Example]) -> str:
        """Return why losses are not finite after the batches of `group`, and what to do."""
        for batch in group:
            broken = first_not_finite(batch.items())
            if broken is not None:
                return f"the batch's {broken} is not finite; look for broken images, or train with another retriever"
        options = self.options
        cause = f"the learning rate {options.optimiser.learning_rate:g} is too high; lower {self.rate_option}"
        if options.precision == "fp16":
            cause = f"float16 overflows: pass --precision bf16; or {cause}"
        return f"{cause}, and start anew {self.start_anew}"

"""Schedules over the training: the learning rate and the Gumbel temperature."""

from __future__ import annotations

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from transformers import get_cosine_schedule_with_warmup

from diffrgen.training.options import OptimiserOptions


def make_scheduler(optimiser: Optimizer, options: OptimiserOptions, steps: int) -> LambdaLR:
    """Return the cosine schedule from the peak learning rate to 0 over `steps`, after the warm-up."""
    return get_cosine_schedule_with_warmup(optimiser, round(options.warmup * steps), steps)


def go_to(scheduler: LambdaLR, step: int) -> None:
    """Set `scheduler`, and the learning rates of its optimiser, to their state after `step` steps."""
    if scheduler.last_epoch == step:
        return
    scheduler.last_epoch, scheduler._step_count = step, step + 1
    rates = [base * rate(step) for base, rate in zip(scheduler.base_lrs, scheduler.lr_lambdas, strict=True)]
    for group, rate in zip(scheduler.optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    scheduler._last_lr = rates


def gumbel_temperature(options: OptimiserOptions, step: int, steps: int) -> float:
    """Return the temperature of Eq. 7 at `step` of `steps`: geometric from the first value to the last."""
    first, last = options.temperature
    return first * (last / first) ** (step / max(steps - 1, 1))

"""The optimiser and what changes over training: learning rate and Gumbel temperature."""

from __future__ import annotations

from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR
from transformers import get_cosine_schedule_with_warmup

from diffrgen.training.options import OptimiserOptions


def make_optimiser(model: nn.Module, options: OptimiserOptions) -> AdamW:
    """Return AdamW with weight decay on matrices and convolutions, none on norms and biases (vectors)."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    decayed = [p for p in parameters if p.dim() > 1]
    plain = [p for p in parameters if p.dim() <= 1]
    groups = [{"params": decayed, "weight_decay": options.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return AdamW(groups, lr=options.learning_rate)


def make_scheduler(optimiser: AdamW, options: OptimiserOptions, steps: int) -> LambdaLR:
    """Return the cosine schedule from the peak learning rate to 0 over `steps`, after the warm-up."""
    return get_cosine_schedule_with_warmup(optimiser, round(options.warmup * steps), steps)


def gumbel_temperature(options: OptimiserOptions, step: int, steps: int) -> float:
    """Return the temperature of Eq. 7 at `step` of `steps`: geometric from the first value to the last."""
    first, last = options.temperature
    return first * (last / first) ** (step / max(steps - 1, 1))

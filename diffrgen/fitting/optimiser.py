"""AdamW as both the retriever and the network are trained with it: weight decay on matrices, none on vectors."""

from __future__ import annotations

from torch import nn
from torch.optim import AdamW


def make_adamw(
    model: nn.Module,
    *,
    learning_rate: float,
    weight_decay: float,
    slower: nn.Module | None = None,
    slower_rate: float | None = None,
) -> AdamW:
    """Return AdamW over `model`; `weight_decay` spares what has one dimension or none: norms, biases, temperatures.

    slower: a part of `model` whose learning rate is `slower_rate` (None: that of all); it has groups of its own.
    """
    apart = set() if slower is None or slower_rate is None else set(slower.parameters())
    groups = []
    for members, rate in ((False, learning_rate), (True, slower_rate)):
        parameters = [p for p in model.parameters() if p.requires_grad and (p in apart) is members]
        decayed = [parameter for parameter in parameters if parameter.dim() > 1]
        plain = [parameter for parameter in parameters if parameter.dim() <= 1]
        if parameters:
            groups += [{"params": decayed, "weight_decay": weight_decay, "lr": rate}]
            groups += [{"params": plain, "weight_decay": 0.0, "lr": rate}]
    # Fused: one pass over all parameters, also on CPUs.
    return AdamW(groups, lr=learning_rate, fused=True)
